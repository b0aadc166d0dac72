-- claim: gives a worker as many due predictions as it asks for, each with a lease.
--
-- Guarantees: a prediction is given to one worker at a time; what is given is leased and its try
-- counted in the same step, so nothing is between picking and holding. Predictions whose lease ran
-- out come first, in the order in which they were submitted. One that is on its last try, because
-- its worker died before, gets a worker for itself: if it kills that one too, it takes no other
-- prediction with it. Only the store's clock counts.
--
-- Uses announce
-- KEYS  1 queue  2 leases  3 turns  4 cancels  5 wake
-- ARGV  1 job prefix  2 in-progress prefix  3 tries prefix
--       4 worker  5 lease, ms  6 how many at most  7 bytes of jobs at most (one is always given)
--       8 last try  9 how many the worker holds
--       10 when this was sent, ms by the store's clock as the worker knows it
--       11 1: also take what others let run out  12 1: sent again, the reply was lost
--       13 events prefix  14 run prefix  15 webhook prefix
-- Answers { now, { id, turn, try, job or false, 1 if canceled, in-progress value }, … }; ids that
-- cannot be one are dropped, and answered with try 0.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local worker, lease = ARGV[4], tonumber(ARGV[5])
local lease_end = now + lease
-- A store that was down or frozen lets leases run out whose holders only wait to renew them. This
-- call may have waited with them: they go first.
local recover = ARGV[11] == '1' and now - ARGV[10] < lease / 4

local answer, bytes, more = { math.floor(now) }, 0, false

local function give(id, turn, try, job, token)
  answer[#answer + 1] = { id, turn, try, job, redis.call('HEXISTS', KEYS[4], id), token }
end

local function read(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value
end

if ARGV[12] == '1' then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local holder = read(ARGV[2] .. id)
    if holder and string.sub(holder, 1, #worker + 1) == worker .. ':' then
      local turn = redis.call('HGET', KEYS[3], id)
      local try = tonumber(string.match(holder, ':(%d+):%d+$'))
      give(id, turn or now, try, read(ARGV[1] .. id), holder)
    end
  end
  return answer
end

if recover then
  local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, 1000)
  for _, id in ipairs(ended) do
    local turn = redis.call('HGET', KEYS[3], id)
    if turn then
      redis.call('ZADD', KEYS[1], 'XX', turn, id)
    end
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
  end
end

local alone = tonumber(ARGV[9]) == 0
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[6])
for i = 1, #due, 2 do
  local id, turn = due[i], due[i + 1]
  local held = redis.call('PTTL', ARGV[2] .. id)
  if #id > 64 or not string.find(id, '^[%w_-]+$') then
    redis.call('ZREM', KEYS[1], id)
    answer[#answer + 1] = { id, turn, 0, false, 0, '' }
  elseif held >= 0 then
    -- Somebody else's, an arq worker's without leases: look again when it has let go.
    redis.call('ZADD', KEYS[1], now + held + 1, id)
  elseif recover or not redis.call('ZSCORE', KEYS[2], id) then
    local job = read(ARGV[1] .. id)
    local try = (tonumber(read(ARGV[3] .. id) or 0) or 0) + 1
    local is_last = try > 1 and try == tonumber(ARGV[8])
    bytes = bytes + (job and #job or 0)
    more = #answer > 1 and bytes > tonumber(ARGV[7]) or is_last and not (alone and #answer == 1)
    if more then
      break
    end
    -- First what fails where somebody overwrote a key: the others are its own.
    redis.call('HSET', KEYS[3], id, turn)
    redis.call('ZADD', KEYS[2], lease_end, id)
    redis.call('ZADD', KEYS[1], lease_end, id)
    redis.call('SET', ARGV[3] .. id, try, 'EX', 86400)
    redis.call('PERSIST', ARGV[1] .. id)
    local token = string.format('%s:%d:%d', worker, try, now)
    redis.call('SET', ARGV[2] .. id, token, 'PX', lease)
    redis.call('PERSIST', ARGV[13] .. id)
    redis.call('PERSIST', ARGV[15] .. id)
    redis.call('DEL', ARGV[14] .. id)
    announce(ARGV[13] .. id, 'status', string.format('{"status":"running","try":%d}', try))
    give(id, turn, try, job, token)
    if is_last then
      more = true
      break
    end
  end
end
if not more and #due / 2 < tonumber(ARGV[6]) then
  -- Nothing more is due: the tokens that are left would wake workers for nothing.
  redis.call('DEL', KEYS[5])
end
return answer
