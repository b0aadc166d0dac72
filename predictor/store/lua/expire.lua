-- expire: ends predictions whose time is over: those that no worker has, and those with webhooks whose worker
-- does not end them.
-- Guarantees: each ends once, as it has read since then. A few at a time, so that nobody waits long.
--
-- Returns { { id, result, mode }, … }.
local result_ttl, now, ended = ARGV[1], now_ms(), {}

-- How late a prediction must be to end here, in ms. Its worker has a second to end it; where nobody waits
-- for a webhook, it has until it dies: the prediction reads as ended meanwhile.
local function grace(id)
  if not redis.call('ZSCORE', LEASES, id) then
    return 0
  end
  return redis.call('EXISTS', WEBHOOK .. id) == 1 and 1000 or math.huge
end

local function end_late(id)
  local queued_at = submitted_at(id)
  local record = queued_at and record_of(id)
  if not record then
    redis.call('ZREM', DEADLINES, id)
    return
  end
  local left = left_of(id, record, queued_at, now)
  if left <= 0 and left <= -grace(id) then
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
