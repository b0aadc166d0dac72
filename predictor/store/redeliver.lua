-- redeliver: has a webhook sent again, whatever came of it.
--
-- Guarantees: it is due at once, and tried as a new one would be. Not before its prediction has ended.
--
-- Uses raise_life
-- KEYS  1 deliveries  2 wake  3 webhook
-- ARGV  1 id  2 time to live of a delivery, ms
-- Answers 'due', 'active' if the prediction has not ended, or nil where there is no webhook.
local hook = redis.pcall('HMGET', KEYS[3], 'url', 'result', 'tries')
if not hook[1] then
  return nil
end
if not hook[2] then
  return 'active'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('HSET', KEYS[3], 'state', 'pending', 'before', hook[3] or '0', 'since', math.floor(now))
raise_life(KEYS[3], ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
raise_life(KEYS[1], ARGV[2])
redis.pcall('LPUSH', KEYS[2], 1)
redis.pcall('PEXPIRE', KEYS[2], 60000)
return 'due'
