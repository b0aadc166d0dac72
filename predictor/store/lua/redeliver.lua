-- redeliver: has a webhook sent again, whatever came of it.
--
-- Guarantees: it is due at once, and tried as a new one would be. Not before its prediction has ended.
--
-- Returns 'due', 'active' if the prediction has not ended, or nil where there is no webhook.
local id, result_ttl = unpack(ARGV)
local hook = redis.pcall('HMGET', WEBHOOK .. id, 'url', 'result', 'tries')
if not hook[1] then
  return nil
end
if not hook[2] then
  return 'active'
end
local now = now_ms()
redis.call('HSET', WEBHOOK .. id, 'state', 'pending', 'before', hook[3] or '0')
redis.call('HSET', WEBHOOK .. id, 'since', math.floor(now))
raise_life(WEBHOOK .. id, result_ttl + DELIVERY_TTL)
redis.call('ZADD', DELIVERIES, now, id)
raise_life(DELIVERIES, result_ttl + DELIVERY_TTL)
wake(DELIVERY_WAKE)
return 'due'
