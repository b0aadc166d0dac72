-- submit: puts a prediction into the queue, or finds that it is there already.
--
-- Guarantees: all of it or nothing is written; repeating it with the same id, because a reply was
-- lost, changes nothing and answers the same. One waiting worker is woken.
--
-- KEYS  1 queue  2 leases  3 job  4 result  5 wake  6 pace
-- ARGV  1 id  2 job as JSON  3 time to live of the job, ms  4 how many may wait, 0: any number
-- Answers { 1 }, or { 0, seconds until one ends, as text, '' if none did lately } if too many wait.
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 or redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return { 1 }
end
-- To the microsecond, or those of one millisecond would stand in the order of their ids.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local limit = tonumber(ARGV[4])
if limit > 0 and redis.call('ZCARD', KEYS[1]) - redis.call('ZCARD', KEYS[2]) >= limit then
  local pace = redis.pcall('HMGET', KEYS[6], 'count', 'at', 'since')
  local count, at, since = tonumber(pace[1]), tonumber(pace[2]), tonumber(pace[3])
  if not (count and at and since) then
    return { 0, '' }
  end
  local seconds = now / 1000
  local share = 1 - math.exp((since - seconds) / 60)
  return { 0, tostring(60 * share / (count * math.exp((at - seconds) / 60))) }
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
if redis.pcall('LPUSH', KEYS[5], 1) == 1 then
  redis.call('PEXPIRE', KEYS[5], 60000)
end
redis.pcall('LTRIM', KEYS[5], 0, 999)
return { 1 }
