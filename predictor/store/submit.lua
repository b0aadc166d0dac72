-- submit: puts a prediction into the queue, or finds that it is there already.
--
-- Guarantees: all of it or nothing is written; repeating it with the same id, because a reply was
-- lost, changes nothing and answers the same. One waiting worker is woken.
--
-- KEYS  1 queue  2 job  3 result  4 wake
-- ARGV  1 id  2 job as JSON  3 time to live of the job, ms
-- Answers 1.
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 or redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 1
end
-- To the microsecond, or those of one millisecond would stand in the order of their ids.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('LPUSH', KEYS[4], 1)
redis.call('LTRIM', KEYS[4], 0, 999)
redis.call('PEXPIRE', KEYS[4], 60000)
return 1
