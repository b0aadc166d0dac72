-- erase: removes what is kept of a prediction that has ended.
--
-- Guarantees: afterwards its input, its result, its events and what was to be told of it are gone;
-- one that has not ended is left alone. One that has expired in the queue has ended.
--
-- KEYS  1 queue  2 deliveries  3 in-progress  4 job  5 tries  6 result  7 events  8 run  9 webhook
-- ARGV  1 id
-- Answers 'erased', 'active', or nil for an unknown id.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
  return 'active'
end
redis.call('ZREM', KEYS[2], ARGV[1])
local queued = redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('DEL', KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]) + queued == 0 then
  return nil
end
return 'erased'
