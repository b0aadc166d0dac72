-- deadline: when an unfinished prediction was submitted, who has claimed it, and when it ends.
-- Guarantees: the deadline counts from the submit. `Cancel-After` ends a prediction though it runs;
-- the queue's time to live ends one that does not run.

-- When it was submitted, as text, and the token of its claim; nil for one that is not claimed.
local function claimed(id)
  return string.match(redis.call('HGET', CLAIMED, id) or '', '^(%S+) (.*)$')
end

-- Writes the lease of a claim. One whose time is over must not read as running again.
local function write_lease(id, token, now, lease, late)
  redis.call('ZADD', LEASES, now + lease, id)
  redis.call('ZADD', QUEUE, now + lease, id)
  if not late then
    redis.call('SET', IN_PROGRESS .. id, token, 'PX', lease)
  end
end

local function worker_of(token)
  return string.match(token, '^(.*):%d+:%d+$')
end

-- When it was submitted, ms; nil for one that is unknown, or has ended.
local function submitted_at(id)
  local kept = field(CLAIMED, id)
  return tonumber(kept and string.match(kept, '^%S+') or redis.call('ZSCORE', QUEUE, id))
end

-- What else is kept of a prediction: see PREDICTION in keys.py.
local function record_of(id)
  local takes, waits, group, canceled, key, progress, waiter, mode = unpack(redis.pcall('HMGET',
    PREDICTION .. id, 'cancel_after', 'queue_ttl', 'group', 'canceled', 'key', 'progress', 'waiter', 'mode'))
  return {
    takes = tonumber(takes) or math.huge, waits = tonumber(waits) or math.huge, group = tonumber(group),
    canceled = canceled, key = key, progress = progress, waiter = waiter, mode = mode or 'async',
  }
end

-- Ms until its deadline, or until its time in the queue is over; infinite where there is none.
local function left_of(id, record, queued_at, now)
  local left = queued_at + math.min(record.takes, record.waits) - now
  if left <= 0 and record.waits < record.takes and redis.call('EXISTS', IN_PROGRESS .. id) == 1 then
    left = queued_at + record.takes - now
  end
  return left
end
