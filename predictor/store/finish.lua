-- finish: ends a prediction with its result.
--
-- Guarantees: the first finisher wins, whoever holds the lease, and the result that it wrote never
-- changes; repeating it changes nothing and answers the same. What was kept for running it is
-- removed in the same step, and only once the result is written: an error leaves all as it was.
--
-- KEYS  1 queue  2 leases  3 turns  4 cancels  5 job  6 in-progress  7 tries  8 result  9 pace
-- ARGV  1 id  2 result as JSON  3 time to live of the result, ms
-- Answers 1, or 0 if another had ended it.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return redis.pcall('GET', KEYS[8]) == ARGV[2] and 1 or 0
end
redis.call('SET', KEYS[8], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])

-- How many end per second, the last minute counting most: a decaying count, and for how long.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local pace = redis.pcall('HMGET', KEYS[9], 'count', 'at', 'since')
local count, at, since = tonumber(pace[1]), tonumber(pace[2]), tonumber(pace[3])
if not (count and at and since) then
  count, at, since = 0, now, now
end
redis.pcall('HSET', KEYS[9], 'count', count * math.exp((at - now) / 60) + 1, 'at', now, 'since', since)
redis.pcall('PEXPIRE', KEYS[9], 600000)
return 1
