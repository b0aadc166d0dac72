-- emit: writes what a run says into the events of its prediction.
--
-- Guarantees: each event once, though this is repeated because a reply was lost; none of a run that
-- another has replaced, and none after the end.
--
-- Uses basics, announce
-- ARGV  id, in-progress value of the run, number of the first event, then kind, data for each
-- Answers how many were written.
local id, run, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local holder = get(IN_PROGRESS .. id)
if holder and holder ~= run or not redis.call('ZSCORE', QUEUE, id) then
  return 0
end
local record, written = PREDICTION .. id, 0
local last = field(record, 'run') == run and tonumber(field(record, 'last')) or 0
for i = 4, #ARGV, 2 do
  if number > last then
    announce(id, ARGV[i], ARGV[i + 1])
    if ARGV[i] == 'progress' then
      redis.pcall('HSET', record, 'progress', ARGV[i + 1])
    elseif last == 0 then
      redis.pcall('HDEL', record, 'progress')
    end
    last, written = number, written + 1
  end
  number = number + 1
end
redis.pcall('HSET', record, 'run', run, 'last', last)
return written
