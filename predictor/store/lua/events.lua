-- events: the events of a prediction after the first `after` ones, `most` of them at most.
-- Guarantees: every call sees the same events in the same places.
--
-- Returns 'kind data' for each.
local id, after, most = unpack(ARGV)
if redis.call('EXISTS', EVENTS .. id) == 1 then
  local kept = redis.pcall('LRANGE', EVENTS .. id, after, after + most - 1)
  return kept.err and {} or kept
end
local result = text(redis.pcall('GETRANGE', RESULT .. id, 0, 20)) or ''
if result == '' and not submitted_at(id) then
  return {}
end
local _, token = claimed(id)
local tries = string.match(result, '"t":(%d+)') or string.match(token or '', ':(%d+):%d+$')
local events = state_events(tries)
if result ~= '' then
  events[#events + 1] = 'completed '
end
return { unpack(events, after + 1) }
