-- cancel: ends a prediction that waits, or asks the worker that runs it to end it.
--
-- Guarantees: one that waits will not be run; one that runs is marked, so that whoever holds it next
-- ends it, even if its worker never hears of it. The mark goes with the prediction: nothing is left
-- that could touch another.
--
-- KEYS  1 queue  2 leases  3 turns  4 cancels  5 job  6 in-progress  7 tries  8 result
-- ARGV  1 id  2 result that says it was canceled  3 time to live of the result, ms  4 told prefix
-- Answers 'gone', 'told', 'done' with the result that there is, or nil for an unknown id.
local result = redis.pcall('GET', KEYS[8])
if result then
  return { 'done', type(result) == 'string' and result or '' }
end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return nil
end
local holder = redis.pcall('GET', KEYS[6])
if type(holder) == 'string' then
  redis.call('HSET', KEYS[4], ARGV[1], 1)
  local told = ARGV[4] .. string.gsub(holder, ':%d+$', '')
  redis.pcall('LPUSH', told, ARGV[1])
  redis.pcall('PEXPIRE', told, 60000)
  return { 'told' }
end
redis.call('SET', KEYS[8], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
return { 'gone' }
