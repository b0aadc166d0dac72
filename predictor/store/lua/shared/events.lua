-- events: what happens to a prediction, in a list; the id of an event is its place in it, from 1.
-- Guarantees: events never move. Those of a prediction that was claimed once and said nothing follow
-- from its state, and are not kept: such a list would take as much memory as the rest.

-- The events that follow from the number of tries, which may be text, or nil.
local function state_events(tries)
  local events = { 'status {"status":"queued"}' }
  if tonumber(tries or 0) > 0 then
    events[2] = 'status {"status":"running","try":1}'
  end
  return events
end

-- From now on all events are kept, from those of its first claim on: the state will not tell them.
local function keep_events(id, token)
  if redis.call('EXISTS', EVENTS .. id) == 0 then
    redis.call('RPUSH', EVENTS .. id, unpack(state_events(string.match(token, ':(%d+):%d+$'))))
  end
end

-- Adds an event to those that are kept, and wakes its readers; returns how many are kept. Fails nothing
-- where its key was overwritten.
local function announce(id, kind, data)
  local kept = redis.pcall('RPUSHX', EVENTS .. id, kind .. ' ' .. data)
  redis.pcall('PUBLISH', EVENTS .. id, kind)
  return kept
end
