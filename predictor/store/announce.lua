-- announce: writes an event of a prediction, and wakes who waits for one.
--
-- Guarantees: an event has one place in the order of its prediction's events, for ever; that it
-- cannot be written (its key was overwritten) keeps nothing else from happening.
--
-- KEYS  none of its own: a part of other scripts
local function announce(events, kind, data)
  redis.pcall('XADD', events, '*', 'event', kind, 'data', data)
  redis.pcall('PUBLISH', events, kind)
end
