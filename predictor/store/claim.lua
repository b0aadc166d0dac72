-- claim: gives a worker as many due predictions as it asks for, each with a lease.
--
-- Guarantees: a prediction is given to one worker at a time; what is given is leased and its try
-- counted in the same step, so nothing is between picking and holding. Predictions whose lease ran
-- out come first, in the order in which they were submitted. Only the store's clock counts.
--
-- KEYS  1 queue  2 leases  3 turns  4 wake
-- ARGV  1 job prefix  2 in-progress prefix  3 tries prefix
--       4 worker  5 lease, ms  6 how many at most  7 bytes of jobs at most (one is always given)
-- Answers { { id, turn, try, job or false }, … }; ids that cannot be one are dropped, answered with
-- try 0.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local lease_end = now + ARGV[5]

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, 1000)) do
  local turn = redis.call('HGET', KEYS[3], id)
  if turn then
    redis.call('ZADD', KEYS[1], 'XX', turn, id)
  end
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end

local claims, bytes, more = {}, 0, false
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[6])
for i = 1, #due, 2 do
  local id, turn = due[i], due[i + 1]
  local held = redis.call('PTTL', ARGV[2] .. id)
  if #id > 64 or not string.find(id, '^[%w_-]+$') then
    redis.call('ZREM', KEYS[1], id)
    claims[#claims + 1] = { id, turn, 0, false }
  elseif held ~= -2 then
    -- Somebody else's, an arq worker's without leases: look again when it has let go.
    redis.call('ZADD', KEYS[1], held >= 0 and now + held + 1 or lease_end, id)
  else
    local job = redis.pcall('GET', ARGV[1] .. id)
    if type(job) ~= 'string' then
      job = false
    end
    bytes = bytes + (job and #job or 0)
    if bytes > tonumber(ARGV[7]) and #claims > 0 then
      more = true
      break
    end
    local try = redis.pcall('INCR', ARGV[3] .. id)
    if type(try) ~= 'number' then
      redis.call('SET', ARGV[3] .. id, 1)
      try = 1
    end
    redis.call('EXPIRE', ARGV[3] .. id, 86400)
    redis.call('PERSIST', ARGV[1] .. id)
    redis.call('SET', ARGV[2] .. id, ARGV[4] .. ':' .. try, 'PX', ARGV[5])
    redis.call('ZADD', KEYS[1], lease_end, id)
    redis.call('ZADD', KEYS[2], lease_end, id)
    redis.call('HSET', KEYS[3], id, turn)
    claims[#claims + 1] = { id, turn, try, job }
  end
end
if not more and #due / 2 < tonumber(ARGV[6]) then
  -- Nothing more is due: the tokens that are left would wake workers for nothing.
  redis.call('DEL', KEYS[4])
end
return claims
