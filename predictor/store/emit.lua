-- emit: writes what a run says into the events of its prediction.
--
-- Guarantees: each event once, though this is repeated because a reply was lost; none of a run that
-- another has replaced, and none after the end.
--
-- Uses announce
-- KEYS  1 queue  2 in-progress  3 events  4 run
-- ARGV  1 id  2 in-progress value of the run  3 number of the first event  4 time to live, ms
--       then kind, data for each
-- Answers how many were written.
local holder = redis.pcall('GET', KEYS[2])
if holder and holder ~= ARGV[2] or not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local known = redis.pcall('HMGET', KEYS[4], 'of', 'last')
local last = known[1] == ARGV[2] and tonumber(known[2]) or 0
local number, written = tonumber(ARGV[3]), 0
for i = 5, #ARGV, 2 do
  if number > last then
    announce(KEYS[3], ARGV[i], ARGV[i + 1])
    if ARGV[i] == 'progress' then
      redis.pcall('HSET', KEYS[4], 'progress', ARGV[i + 1])
    end
    last, written = number, written + 1
  end
  number = number + 1
end
redis.pcall('HSET', KEYS[4], 'of', ARGV[2], 'last', last)
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return written
