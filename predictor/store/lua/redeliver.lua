-- redeliver: has a webhook sent again, whatever came of it.
-- Guarantees: it is due at once, and tried as a new one, but not before its prediction has ended.
--
-- Returns 'due', 'active' if the prediction has not ended, or nil where there is no webhook.
local id, result_ttl = unpack(ARGV)
local hook = redis.pcall('HMGET', WEBHOOK .. id, 'url', 'result', 'tries')
if not (hook[1] and hook[2]) then
  return hook[1] and 'active' or nil
end
redis.call('HSET', WEBHOOK .. id, 'before', hook[3] or '0')
local reply = make_due(id, result_ttl)
return type(reply) == 'table' and reply or 'due'
