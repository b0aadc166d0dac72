-- cancel: ends a prediction that waits, or asks the worker that runs it to end it.
--
-- Guarantees: one that waits will not be run; one that runs is marked, so that whoever holds it next
-- ends it, even if its worker never hears of it. The mark goes with the prediction: nothing is left
-- that could touch another.
--
-- Uses announce, raise_life, settle
-- KEYS  1 to 13 as settle
-- ARGV  1 to 4 as settle, the result one that says it was canceled  5 told prefix
--       6 result that says it has expired, for one that has
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
  local told = ARGV[5] .. string.gsub(holder, ':%d+:%d+$', '')
  redis.pcall('LPUSH', told, ARGV[1])
  redis.pcall('PEXPIRE', told, 60000)
  return { 'told' }
end
local turn = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
local expired = redis.call('EXISTS', KEYS[5]) == 0
ARGV[2] = submitted_at(expired and ARGV[6] or ARGV[2], turn)
settle()
return expired and { 'done', ARGV[2] } or { 'gone' }
