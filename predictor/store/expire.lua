-- expire: ends a prediction that has waited longer than it may.
--
-- Guarantees: one that still may run, or runs, is left alone.
--
-- Uses announce, raise_life, settle
-- KEYS  1 to 13 as settle
-- ARGV  1 to 4 as settle, the result one that says it has expired
-- Answers 1, or 0 if it was left alone.
local turn = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
if not turn or redis.call('EXISTS', KEYS[5], KEYS[6]) > 0 then
  return 0
end
ARGV[2] = submitted_at(ARGV[2], turn)
settle()
return 1
