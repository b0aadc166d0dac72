-- finish: ends a prediction with its result.
--
-- Guarantees: the first finisher wins, whoever holds the lease, and the result that it wrote never
-- changes; repeating it changes nothing. What was kept for running it is removed in the same step.
--
-- KEYS  1 queue  2 leases  3 turns  4 job  5 in-progress  6 tries  7 result
-- ARGV  1 id  2 result as JSON  3 time to live of the result, ms
-- Answers 1, or 0 if it had ended already.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('SET', KEYS[7], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[4], KEYS[5], KEYS[6])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
