-- deliver: gives a deliverer as many due webhooks as it asks for, and lengthens its hold on others.
--
-- Guarantees: what is given is put off in the same step: nobody else gets it meanwhile, and it is
-- given again if this deliverer dies. Only the store's clock counts.
--
-- KEYS  1 deliveries  2 wake
-- ARGV  1 webhook prefix  2 lease, ms  3 how many at most  then the ids that it holds
-- Answers { id, url, result, tries, tries before it was last asked for, when that was } for each. No
-- result: its prediction had not ended by the time at which it expires, look whether it has expired.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local lease_end, most = now + ARGV[2], tonumber(ARGV[3])
for i = 4, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', lease_end, ARGV[i])
end
local answer = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(due) do
  local hook = redis.pcall('HMGET', ARGV[1] .. id, 'url', 'result', 'tries', 'before', 'since')
  if hook[1] and hook[2] then
    redis.call('ZADD', KEYS[1], lease_end, id)
  else
    redis.call('ZREM', KEYS[1], id)
  end
  if hook[1] then
    local tries, before, since = hook[3] or '0', hook[4] or '0', hook[5] or '0'
    answer[#answer + 1] = { id, hook[1], hook[2] or '', tries, before, since }
  end
end
if #due < most then
  redis.call('DEL', KEYS[2])
end
return answer
