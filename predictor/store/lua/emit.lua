-- emit: writes events of a run.
-- Guarantees: each event once, though this is repeated because a reply was lost; none of a run that
-- another has replaced, and none after the end.
--
-- ARGV  run: its token, number: of the first event, then kind, data for each.
-- Returns how many were written.
local id, run, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local record, written = PREDICTION .. id, 0
local holder, speaker = get(IN_PROGRESS .. id), field(record, 'run')

local function began(token)
  return tonumber(token and string.match(token, '%d+$')) or 0
end

local is_replaced = holder and holder ~= run
if not holder and speaker ~= run then -- the run that wrote last may have begun after this one
  is_replaced = began(speaker) >= began(run)
end
if is_replaced or not redis.call('ZSCORE', QUEUE, id) then
  return 0
end
local last = speaker == run and tonumber(field(record, 'last')) or 0
keep_events(id, run)
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
