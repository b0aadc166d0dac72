-- finish: ends a prediction with its result.
--
-- Guarantees: the first finisher wins, whoever holds the lease, and the result that it wrote never
-- changes; repeating it changes nothing and answers the same.
--
-- Uses announce, raise_life, settle
-- KEYS  1 to 13 as settle  14 pace
-- ARGV  1 to 4 as settle  5 when this run began, ms by the store's clock
-- Answers 1, or 0 if another had ended it.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return redis.pcall('GET', KEYS[8]) == ARGV[2] and 1 or 0
end
settle()

-- How many end per second, the last minute counting most: a decaying count, and for how long. And
-- how many seconds a run takes, the last ten or so counting most.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local took = math.max(0, now - ARGV[5] / 1000)
local pace = redis.pcall('HMGET', KEYS[14], 'count', 'at', 'since', 'run')
local count, at, since, run =
  tonumber(pace[1]), tonumber(pace[2]), tonumber(pace[3]), tonumber(pace[4])
if not (count and at and since and run) then
  count, at, since, run = 0, now, now, took
end
count, run = count * math.exp((at - now) / 60) + 1, run + 0.1 * (took - run)
redis.pcall('HSET', KEYS[14], 'count', count, 'at', now, 'since', since, 'run', run)
redis.pcall('PEXPIRE', KEYS[14], 600000)
return 1
