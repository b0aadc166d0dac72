-- claim: gives a worker as many due predictions as it asks for, each with a lease.
--
-- Guarantees: a prediction is given to one worker at a time; what is given is leased and its try
-- counted in the same step, so nothing is between picking and holding. Predictions whose lease ran
-- out come first, in the order in which they were submitted. Suspects are given to one worker at a
-- time, which has nothing else to do. Only the store's clock counts.
local worker, lease, most, most_bytes, max_tries, holds, is_quarantined, sent_at,
  may_recover, is_repeat = unpack(ARGV)
lease, most, max_tries, holds = tonumber(lease), tonumber(most), tonumber(max_tries), tonumber(holds)
local now = clock()
local lease_end = now + lease

-- Returns { now, 1 if this worker is kept for suspects, { id, queued_at, try, job or false, in-progress
-- value, verdict }, … }. The verdict is empty for what is to be run, or says why it is not.
local answer, bytes = { math.floor(now), 0 }, 0

local function verdict_of(id, queued_at, job)
  if not job or is_late(id, queued_at, now) then
    return 'expired'
  elseif redis.call('HEXISTS', CANCELS, id) == 1 then
    return 'canceled'
  end
  return field(PREDICTION .. id, 'group') == '0' and 'given_up' or ''
end

local function give(id, queued_at, token, verdict, job)
  local try = tonumber(string.match(token, ':(%d+):%d+$'))
  answer[#answer + 1] = { id, queued_at, try, job or false, token, verdict }
end

local function hold(id, token, verdict)
  redis.call('ZADD', LEASES, lease_end, id)
  redis.call('ZADD', QUEUE, lease_end, id)
  if verdict ~= 'expired' then -- else it would read as running again
    redis.call('SET', IN_PROGRESS .. id, token, 'PX', lease)
  end
end

-- Leases a prediction to this worker; false if the answer is large enough without it.
local function take(id, queued_at)
  local job = get(JOB .. id)
  bytes = bytes + (job and #job or 0)
  if #answer > 2 and bytes > tonumber(most_bytes) then
    return false
  end
  local verdict, try = verdict_of(id, tonumber(queued_at), job), tonumber(get(TRIES .. id)) or 0
  try = verdict == '' and try + 1 or try
  local token = string.format('%s:%d:%d', worker, try, now)
  -- First what fails where somebody overwrote a key: the others are its own.
  redis.call('HSET', CLAIMED, id, queued_at .. ' ' .. token)
  redis.call('HSET', HELD .. worker, id, token)
  hold(id, token, verdict)
  if verdict == '' then
    redis.call('SET', TRIES .. id, try, 'EX', 86400)
    announce(id, 'status', string.format('{"status":"running","try":%d}', try))
  end
  give(id, queued_at, token, verdict, job)
  return true
end

-- Puts back what workers held whose leases ran out.
local function recover()
  local company = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. now, 'LIMIT', 0, 1000)) do
    local queued_at, token, holder =
      string.match(redis.call('HGET', CLAIMED, id) or '', '^(%S+) ((.-):%d+:%d+)$')
    if queued_at then
      local deaths = tonumber(get(TRIES .. id)) or 1
      if holder == worker then
        deaths = math.max(0, deaths - 1) -- it lives: it is the one that asks
        redis.call('SET', TRIES .. id, deaths, 'EX', 86400)
      end
      company[holder] = company[holder] or redis.call('HLEN', HELD .. holder)
      local suspicious = math.max(1, max_tries - 1)
      put_back(id, queued_at, token, now, deaths, max_tries, suspicious, company[holder])
    else
      redis.call('ZREM', LEASES, id)
    end
  end
end

-- Gives suspects to this worker if it is, or can be, the one that is kept for them; whether it is.
local function serve_suspects()
  local first = redis.call('ZRANGE', SUSPECTS, 0, 0, 'WITHSCORES')
  if not first[1] then
    if is_quarantined == '1' and get(QUARANTINE) == worker then
      redis.call('DEL', QUARANTINE)
    end
    return false
  end
  local kept, other = get(QUARANTINE), get(LINE)
  -- A worker with other predictions is kept, too, if another goes on with the line; one that is
  -- alone only when a suspect has waited for long.
  local can_be = holds == 0 or (other and other ~= worker) or now - first[2] > 3 * lease
  if kept and kept ~= worker or not (kept or can_be) then
    redis.call('SET', LINE, worker, 'PX', 3000)
    return false
  end
  redis.call('SET', QUARANTINE, worker, 'PX', lease)
  if holds > 0 then
    return true
  end
  for n, id in ipairs(redis.call('ZRANGE', SUSPECTS, 0, most - 1)) do
    most = math.min(most, tonumber(field(PREDICTION .. id, 'group')) or 1)
    if n > most or not take(id, string.match(redis.call('HGET', CLAIMED, id) or '', '^%S+') or now) then
      break
    end
    redis.call('ZREM', SUSPECTS, id)
  end
  return true
end

-- Gives what is due; whether more may be.
local function serve_line()
  local due = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #due, 2 do
    local id, queued_at = due[i], due[i + 1]
    local held = redis.call('PTTL', IN_PROGRESS .. id)
    if #id > 64 or not string.find(id, '^[%w_-]+$') then
      redis.call('ZREM', QUEUE, id)
      answer[#answer + 1] = { id, queued_at, 0, false, '', 'dropped' }
    elseif redis.call('ZSCORE', LEASES, id) then
      -- Its lease ran out, and it is not yet time to say that its worker died.
    elseif held >= 0 then
      -- Somebody else's, an arq worker's without leases: look again when it has let go.
      redis.call('ZADD', QUEUE, now + held + 1, id)
    elseif not take(id, queued_at) then
      return true
    end
  end
  return #due / 2 == most
end

if is_repeat == '1' then -- the reply was lost
  local held = redis.call('HGETALL', HELD .. worker)
  for i = 1, #held, 2 do
    local id, token = held[i], held[i + 1]
    local queued_at, holder = string.match(redis.call('HGET', CLAIMED, id) or '', '^(%S+) (.*)$')
    if holder == token and redis.call('ZSCORE', LEASES, id) then
      local job = get(JOB .. id)
      local verdict = verdict_of(id, tonumber(queued_at), job)
      -- Its lease may have run out: the heartbeat renews it, though this worker does not know of it.
      hold(id, token, verdict)
      give(id, queued_at, token, verdict, job)
      if (tonumber(field(PREDICTION .. id, 'group')) or 0) > 0 then
        answer[2] = 1
      end
    end
  end
  if answer[2] == 1 and (get(QUARANTINE) or worker) == worker then
    redis.call('SET', QUARANTINE, worker, 'PX', lease)
  end
  return answer
end

-- A store that was down or frozen lets leases run out whose holders only wait to renew them. This
-- call may have waited with them: they go first.
if may_recover == '1' and now - sent_at < lease / 4 then
  recover()
end
if serve_suspects() then
  answer[2] = 1
elseif not serve_line() then
  -- Nothing more is due: the tokens that are left would wake workers for nothing.
  redis.call('DEL', WAKE)
end
if #answer > 2 then
  redis.call('PEXPIRE', HELD .. worker, 86400000)
end
return answer
