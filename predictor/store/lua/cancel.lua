-- cancel: ends a prediction that waits, or asks the worker that runs it to end it.
-- Guarantees: one that is queued will not be run; one that runs is marked, so that its next worker
-- ends it, even if this one does not. The mark goes with the prediction.
--
-- Returns 'canceled' or 'late' with the result and the mode, 'canceling', 'done' with the first bytes of
-- the result, or nil for an unknown id.
local id, result_ttl, head = unpack(ARGV)
local queued_at = submitted_at(id)
if not queued_at then
  local known = redis.call('EXISTS', RESULT .. id) == 1
  return known and { 'done', text(redis.pcall('GETRANGE', RESULT .. id, 0, head)) or '' } or nil
end
local record = record_of(id)
if left_of(id, record, queued_at, now_ms()) <= 0 then
  return { 'late', settle_late(id, record, queued_at, result_ttl), record.mode }
end
local holder = get(IN_PROGRESS .. id)
if not holder then
  return { 'canceled', settle_unrun(id, record, CANCELED, queued_at, result_ttl), record.mode }
end
redis.call('HSET', PREDICTION .. id, 'canceled', 1)
local requests = CANCEL_REQUESTS .. (worker_of(holder) or holder)
redis.pcall('LPUSH', requests, id)
redis.pcall('PEXPIRE', requests, 60000)
return { 'canceling' }
