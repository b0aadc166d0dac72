-- read: a prediction's state at one moment.
--
-- Guarantees: a prediction between two states is never seen in neither; one that was seen to be late
-- never succeeds.
--
-- ARGV  id, how many bytes of a result are read (0: all)
-- Answers { 'done', progress, result, its size }, or { 'running' | 'queued' | 'late', progress, now,
-- turn, place in the queue, tries, in-progress value, ms that are left, pace … }; nil for an unknown
-- id.
local id, most = unpack(ARGV)
local size = redis.pcall('STRLEN', RESULT .. id)
local turn = size == 0 and turn_of(id)
if not turn then
  if size == 0 and redis.call('EXISTS', RESULT .. id) == 0 then
    return nil
  end
  local result = text(redis.pcall('GETRANGE', RESULT .. id, 0, most - 1))
  local progress = field(PREDICTION .. id, 'progress')
  return { 'done', progress or '', result or '', type(size) == 'number' and size or 0 }
end
local record = redis.pcall('HMGET', PREDICTION .. id, 'progress', 'run')
local now, holder = now_ms(), get(IN_PROGRESS .. id)
local left = left_of(id, turn, now)
local state = holder and 'running' or 'queued'
if left <= 0 or not holder and redis.call('EXISTS', JOB .. id) == 0 then
  state = 'late'
end
local pace = redis.pcall('HMGET', PACE, 'count', 'at', 'since', 'run')
return {
  state,
  holder and record[2] == holder and text(record[1]) or '',
  math.floor(now),
  string.format('%.17g', turn),
  redis.call('ZRANK', QUEUE, id),
  get(TRIES .. id) or '0',
  holder or '',
  left < math.huge and math.ceil(left) or -1,
  pace[1], pace[2], pace[3], pace[4],
}
