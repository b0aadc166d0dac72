-- erase: removes what is kept of a prediction that has ended.
--
-- Guarantees: afterwards its input, its result, its events and what was to be told of it are gone;
-- one that has not ended is left alone.
--
-- KEYS  1 queue  2 deliveries  3 result  4 job  5 events  6 run  7 webhook
-- ARGV  1 id
-- Answers 'erased', 'active', or nil for an unknown id.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 'active'
end
if redis.call('DEL', KEYS[3], KEYS[4]) == 0 then
  return nil
end
redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
redis.call('ZREM', KEYS[2], ARGV[1])
return 'erased'
