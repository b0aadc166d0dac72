-- deliver: leases as many due webhooks to a deliverer as it asks for, and renews its other leases.
-- Guarantees: a webhook is leased to one deliverer at a time, and due again if that one dies. Only
-- the store's clock counts.
--
-- ARGV  most_bytes: of results, beyond the first. Behind the named ones, the ids that it holds.
-- Returns { ms until the next may be due, { id, url, result, trace, tries, tries before it was last
-- asked for, when that was }, … }.
local lease, most, most_bytes = unpack(ARGV)
local now = clock()
local lease_end, bytes, reply = now + lease, 0, {}
for i = 4, #ARGV do
  redis.call('ZADD', DELIVERIES, 'XX', lease_end, ARGV[i])
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELIVERIES, '-inf', now, 'LIMIT', 0, most)) do
  local hook = redis.pcall('HMGET', WEBHOOK .. id, 'url', 'result', 'trace', 'tries', 'before', 'since')
  bytes = bytes + (hook[2] and #hook[2] or 0)
  if #reply > 0 and bytes > tonumber(most_bytes) then
    break
  elseif hook[1] and hook[2] then
    redis.call('ZADD', DELIVERIES, lease_end, id)
    local counts = { hook[4] or '0', hook[5] or '0', hook[6] or '0' }
    reply[#reply + 1] = { id, hook[1], hook[2], hook[3] or '', unpack(counts) }
  else
    redis.call('ZREM', DELIVERIES, id)
  end
end
local next_due = redis.call('ZRANGE', DELIVERIES, 0, 0, 'WITHSCORES')[2]
local left = next_due and math.ceil(math.max(0, next_due - now)) or -1
if left ~= 0 then
  redis.call('DEL', DELIVERY_WAKE)
end
table.insert(reply, 1, left)
return reply
