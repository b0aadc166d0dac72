-- record: keeps the outcome of an attempt to deliver a webhook.
-- Guarantees: repeating it changes nothing; of a prediction that was erased meanwhile nothing is
-- kept; what another deliverer has delivered meanwhile stays delivered, and what it has given up is
-- not pending again. A webhook that was requested again after `since` is due at once.
--
-- Times in ms; pause: until the next attempt ('': none); ttl: of the webhook ('': as it is).
local id, began, attempt, state, pause, ttl, since = unpack(ARGV)
local hook, now = WEBHOOK .. id, clock()
local known = redis.call('HGET', hook, 'state')
if redis.call('EXISTS', hook) == 0 then
  redis.call('ZREM', DELIVERIES, id)
  return
end
if redis.call('HSET', hook, 'attempt:' .. began, attempt) == 1 then
  redis.pcall('HINCRBY', hook, 'tries', 1)
  count('webhook_attempts ' .. (state == 'delivered' and 'succeeded' or 'failed'))
end
if (redis.call('HGET', hook, 'since') or '0') ~= since then
  redis.call('ZADD', DELIVERIES, 'XX', now, id)
elseif known == 'pending' or state == 'delivered' and known ~= state then
  redis.call('HSET', hook, 'state', state)
  if pause == '' then
    redis.call('ZREM', DELIVERIES, id)
  else
    redis.call('ZADD', DELIVERIES, 'XX', now + pause, id)
  end
  if ttl ~= '' then
    redis.call('PEXPIRE', hook, ttl)
  end
end
