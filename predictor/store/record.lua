-- record: writes down what came of an attempt to deliver a webhook.
--
-- Guarantees: repeating it changes nothing; of a prediction that was erased meanwhile nothing is kept.
--
-- KEYS  1 deliveries  2 webhook
-- ARGV  1 id  2 when the attempt began, ms  3 attempt as JSON  4 state  5 ms until the next, '' for
--       none  6 time to live of the webhook from now on, ms, '' to leave it
--       7 when it was asked for, as the delivery said: one that was asked for since is due at once
-- Answers nothing.
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return
end
if redis.call('HSET', KEYS[2], 'attempt:' .. ARGV[2], ARGV[3]) == 1 then
  redis.pcall('HINCRBY', KEYS[2], 'tries', 1)
end
if (redis.call('HGET', KEYS[2], 'since') or '0') ~= ARGV[7] then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[1], time[1] * 1000 + time[2] / 1000, ARGV[1])
  return
end
redis.call('HSET', KEYS[2], 'state', ARGV[4])
if ARGV[5] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[1], time[1] * 1000 + time[2] / 1000 + ARGV[5], ARGV[1])
end
if ARGV[6] ~= '' then
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
