-- deadline: the time at which a prediction ends, whatever became of it.
--
-- Guarantees: it is reckoned from the submit, which never changes. One that has a `Cancel-After` ends
-- then, though it runs; one that has waited for the queue's time to live ends unless it runs.
--

-- When an unfinished prediction was submitted, ms; nil for one that is unknown, or has ended.
local function submitted_at(id)
  local kept = field(CLAIMED, id)
  return tonumber(kept and string.match(kept, '^%S+') or redis.call('ZSCORE', QUEUE, id))
end

-- Ms that are left of its time, or of that in the queue; infinite where it has no end.
local function left_of(id, queued_at, now)
  local terms = redis.pcall('HMGET', PREDICTION .. id, 'cancel_after', 'queue_ttl')
  local takes, waits = tonumber(terms[1]) or math.huge, tonumber(terms[2]) or math.huge
  local left = queued_at + math.min(takes, waits) - now
  if left <= 0 and waits < takes and redis.call('EXISTS', IN_PROGRESS .. id) == 1 then
    left = queued_at + takes - now
  end
  return left
end

local function is_late(id, queued_at, now)
  return left_of(id, queued_at, now) <= 0
end
