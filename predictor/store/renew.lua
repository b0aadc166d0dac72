-- renew: lengthens the leases that a worker holds.
--
-- Guarantees: a lease that ran out is taken again if nobody else has claimed, or may claim, the
-- prediction; one that somebody else has, or that was given back, is left alone.
--
-- KEYS  1 queue  2 leases  3 turns  4 cancels
-- ARGV  1 in-progress prefix  2 lease, ms  then id, token, turn for each
-- Answers the ids that this worker need not go on with: canceled, or ended by another.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local lease_end = now + ARGV[2]
local over = {}
for i = 3, #ARGV, 3 do
  local id, token, turn = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local holder = redis.pcall('GET', ARGV[1] .. id)
  local queued = redis.call('ZSCORE', KEYS[1], id)
  local ran_out = not holder and redis.call('ZSCORE', KEYS[2], id)
  if queued and (holder == token or ran_out) then
    redis.call('SET', ARGV[1] .. id, token, 'PX', ARGV[2])
    redis.call('ZADD', KEYS[1], lease_end, id)
    redis.call('ZADD', KEYS[2], lease_end, id)
    redis.call('HSET', KEYS[3], id, turn)
  end
  if not queued or redis.call('HEXISTS', KEYS[4], id) == 1 then
    over[#over + 1] = id
  end
end
return over
