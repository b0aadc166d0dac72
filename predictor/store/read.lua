-- read: a prediction's state at one moment.
--
-- Guarantees: a prediction between two states is never seen in neither.
--
-- KEYS  1 queue  2 job  3 in-progress  4 result
-- ARGV  1 id
-- Answers the result's bytes, or 'running', 'queued', 'expired' (in the queue, its job gone), or nil.
local result = redis.pcall('GET', KEYS[4])
if result then
  return { 'done', type(result) == 'string' and result or '' }
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  return { 'running' }
end
local queued = redis.call('ZSCORE', KEYS[1], ARGV[1])
if queued and redis.call('EXISTS', KEYS[2]) == 1 then
  return { 'queued' }
end
if queued then
  return { 'expired' }
end
return nil
