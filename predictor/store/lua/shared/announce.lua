-- announce: writes an event of a prediction, and wakes who waits for one.
--
-- Guarantees: an event has one place in the order of its prediction's events, for ever; that it
-- cannot be written (its key was overwritten) keeps nothing else from happening.
local function announce(id, kind, data)
  redis.pcall('XADD', EVENTS .. id, '*', 'event', kind, 'data', data)
  redis.pcall('PUBLISH', EVENTS .. id, kind)
end
