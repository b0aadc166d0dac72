-- expire: ends predictions whose time was over before a worker took them.
-- Guarantees: each ends once, as it has read since then. What is leased is left to its worker. A few at
-- a time, so that nobody waits long.
--
-- Returns { { id, result, mode }, … }.
local result_ttl, now, ended = ARGV[1], now_ms(), {}

-- Whether the time of a prediction is over.
local function end_late(id)
  local queued_at = submitted_at(id)
  local record = queued_at and record_of(id)
  if not record or left_of(id, record, queued_at, now) > 0 then
    return false
  elseif not redis.call('ZSCORE', LEASES, id) then
    ended[#ended + 1] = { id, settle_late(id, record, queued_at, result_ttl), record.mode }
  end
  return true
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, 100)) do
  if not end_late(id) then
    redis.call('ZREM', DEADLINES, id)
  end
end
-- Those without a deadline of their own have the same time in the queue: the first is over first.
for _, id in ipairs(redis.call('ZRANGE', QUEUE, 0, 99)) do
  if not end_late(id) then
    break
  end
end
return ended
