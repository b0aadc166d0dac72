-- deliver: gives a deliverer as many due webhooks as it asks for, and lengthens its hold on others.
--
-- Guarantees: what is given is put off in the same step: nobody else gets it meanwhile, and it is
-- given again if this deliverer dies. A prediction whose time is over ends here, though there is no
-- worker. Only the store's clock counts.
--
-- ARGV  lease, how many at most, bytes of results at most (one is always given), result that says it
--       has expired, that it has run out of time, times to live of a result, of a delivery,
--       then the ids that it holds
-- Returns { ms until the next may be due, { id, url, result, tries, tries before it was last asked
-- for, when that was }, … }.
local lease, most, most_bytes, expired, timed_out, result_ttl, delivery_ttl = unpack(ARGV)
local now = clock()
local lease_end, bytes, answer = now + lease, 0, {}
for i = 8, #ARGV do
  redis.call('ZADD', DELIVERIES, 'XX', lease_end, ARGV[i])
end

local function webhook_of(id)
  return redis.pcall('HMGET', WEBHOOK .. id, 'url', 'result', 'tries', 'before', 'since')
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELIVERIES, '-inf', now, 'LIMIT', 0, most)) do
  local hook, queued_at = webhook_of(id), submitted_at(id)
  if queued_at and is_late(id, queued_at, now) then
    local why = get(TRIES .. id) and timed_out or expired
    settle(id, unrun(id, why, queued_at), result_ttl, delivery_ttl)
    hook = webhook_of(id)
  end
  bytes = bytes + (hook[2] and #hook[2] or 0)
  if hook[2] and #answer > 0 and bytes > tonumber(most_bytes) then
    break
  elseif hook[1] and (hook[2] or queued_at) then
    redis.call('ZADD', DELIVERIES, lease_end, id)
  else
    redis.call('ZREM', DELIVERIES, id)
  end
  if hook[1] and hook[2] then
    answer[#answer + 1] = { id, hook[1], hook[2], hook[3] or '0', hook[4] or '0', hook[5] or '0' }
  end
end
local next_due = redis.call('ZRANGE', DELIVERIES, 0, 0, 'WITHSCORES')[2]
table.insert(answer, 1, next_due and math.ceil(math.max(0, next_due - now)) or -1)
if next_due ~= nil and tonumber(next_due) > now or next_due == nil then
  redis.call('DEL', DELIVERY_WAKE)
end
return answer
