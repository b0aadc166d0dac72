-- expire: ends predictions whose time is over: those that no worker took, and those whose worker does not
-- end them.
-- Guarantees: each ends once, as it has read since then. A few at a time, so that nobody waits long.
--
-- Returns { { id, result, mode }, … }.
local result_ttl, now, ended = ARGV[1], now_ms(), {}
local GRACE = 1000 -- ms that a worker has to end what it runs

local function end_late(id)
  local queued_at = submitted_at(id)
  local record = queued_at and record_of(id)
  if not record then
    redis.call('ZREM', DEADLINES, id)
    return
  end
  local left = left_of(id, record, queued_at, now)
  if left <= 0 and (left <= -GRACE or not redis.call('ZSCORE', LEASES, id)) then
    ended[#ended + 1] = { id, settle_late(id, record, queued_at, result_ttl), record.mode }
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, 1000)) do
  end_late(id)
end
-- Those without a deadline of their own: as a rule the first of the queue is over first.
for _, id in ipairs(redis.call('ZRANGE', QUEUE, 0, 99)) do
  end_late(id)
end
return ended
