-- read: a prediction's state at one moment.
-- Guarantees: a prediction between two states is never seen in neither; one that was seen to be late
-- never succeeds.
--
-- ARGV  most: how many bytes of a result are read (0: all).
-- Returns { 'done', progress, result, its size }, or { 'running' | 'queued' | 'late', progress, now,
-- queued_at, place in the queue, tries, start of its run, ms that are left, TIMES, named
-- arguments of the job }; nil for an unknown id.
local id, most = unpack(ARGV)
local size = redis.pcall('STRLEN', RESULT .. id)
local queued_at = size == 0 and submitted_at(id)
if not queued_at then
  if size == 0 and redis.call('EXISTS', RESULT .. id) == 0 then
    return nil
  end
  local result = text(redis.pcall('GETRANGE', RESULT .. id, 0, most - 1)) or ''
  return { 'done', field(PREDICTION .. id, 'progress') or '', result, tonumber(size) or 0 }
end
local record, now, holder = record_of(id), now_ms(), get(IN_PROGRESS .. id)
local left = left_of(id, record, queued_at, now)
local state = holder and 'running' or 'queued'
if left <= 0 or not holder and redis.call('EXISTS', JOB .. id) == 0 then
  state = 'late'
end
return {
  state,
  holder and field(PREDICTION .. id, 'run') == holder and record.progress or '',
  math.floor(now),
  string.format('%.17g', queued_at),
  redis.call('ZRANK', QUEUE, id),
  tonumber(get(TRIES .. id)) or 0,
  math.floor(tonumber(string.match(holder or '', ':(%d+)$')) or now),
  left < math.huge and math.ceil(left) or -1,
  get(TIMES) or '',
  string.match(text(redis.pcall('GETRANGE', JOB .. id, 0, 2047)) or '', '"k":({.-}),"et"') or '',
}
