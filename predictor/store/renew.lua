-- renew: lengthens the leases that a worker holds.
--
-- Guarantees: a lease that ran out is taken again if nobody else has the prediction; one that
-- somebody else has is left to them.
--
-- KEYS  1 queue  2 leases  3 turns
-- ARGV  1 in-progress prefix  2 lease, ms  then id, token, turn for each
-- Answers the ids that are no longer this worker's: finished, or held by another.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local lease_end = now + ARGV[2]
local lost = {}
for i = 3, #ARGV, 3 do
  local id, token, turn = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local holder = redis.pcall('GET', ARGV[1] .. id)
  if (not holder or holder == token) and redis.call('ZSCORE', KEYS[1], id) then
    redis.call('SET', ARGV[1] .. id, token, 'PX', ARGV[2])
    redis.call('ZADD', KEYS[1], lease_end, id)
    redis.call('ZADD', KEYS[2], lease_end, id)
    redis.call('HSET', KEYS[3], id, turn)
  else
    lost[#lost + 1] = id
  end
end
return lost
