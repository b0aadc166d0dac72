-- deadline: the time at which a prediction ends, whatever became of it.
--
-- Guarantees: it is reckoned from the submit, which never changes. One that has a `Cancel-After` ends
-- then, though it runs; one that has waited for the queue's time to live ends unless it runs.
--
-- Uses basics

-- When an unfinished prediction was submitted, ms; nil for one that is unknown, or has ended.
local function turn_of(id)
  local kept = field(TURNS, id)
  return tonumber(kept and string.match(kept, '^%S+') or redis.call('ZSCORE', QUEUE, id))
end

-- Ms that are left of its `Cancel-After`; nil where it has none.
local function left_of(id, turn, now)
  local cancel_after = tonumber(field(PREDICTION .. id, 'cancel_after'))
  return cancel_after and turn + cancel_after - now
end

local function is_late(id, turn, now, queue_ttl)
  local left = left_of(id, turn, now)
  if left and left <= 0 then
    return true
  end
  return turn + queue_ttl <= now and redis.call('EXISTS', IN_PROGRESS .. id) == 0
end
