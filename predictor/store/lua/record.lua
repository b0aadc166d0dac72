-- record: writes down what came of an attempt to deliver a webhook.
--
-- Guarantees: repeating it changes nothing; of a prediction that was erased meanwhile nothing is
-- kept; what another deliverer has delivered meanwhile stays delivered, and what it has given up is
-- not pending again.
--
-- ARGV  id, when the attempt began (ms), attempt as JSON, state, ms until the next ('' for none), time
--       to live of the webhook from now on (ms, '' to leave it), when it was asked for, as the
--       delivery said: one that was asked for since is due at once
local id, began, attempt, state, pause, ttl, since = unpack(ARGV)
local hook, now = WEBHOOK .. id, clock()
local known = redis.call('HGET', hook, 'state')
if redis.call('EXISTS', hook) == 0 then
  redis.call('ZREM', DELIVERIES, id)
  return
end
if redis.call('HSET', hook, 'attempt:' .. began, attempt) == 1 then
  redis.pcall('HINCRBY', hook, 'tries', 1)
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
