-- claim: leases as many due predictions to a worker as it asks for.
-- Guarantees: a prediction is leased to one worker at a time, and its try is counted in the same
-- step. What dead workers held is requeued, and comes first in the order of its submits. Suspects
-- are leased to one worker at a time, which has nothing else to do. Only the store's clock counts.
local worker, lease, most, most_bytes, max_tries, holds, is_quarantined, sent_at,
  may_recover, is_repeat = unpack(ARGV)
lease, most, max_tries, holds = tonumber(lease), tonumber(most), tonumber(max_tries), tonumber(holds)
local now = clock()

-- Returns { now, 1 if this worker is kept for suspects, 1 if more may be due, { id, queued_at, job or
-- false, token, verdict }, … }. The verdict says why it is not to be run; it is empty for one that is.
local reply, bytes = { math.floor(now), 0, 1 }, 0

local function verdict_of(id, queued_at, job)
  local record = record_of(id)
  if not job or left_of(id, record, queued_at, now) <= 0 then
    return 'expired'
  elseif record.canceled then
    return 'canceled'
  end
  return record.group == 0 and 'given_up' or ''
end

-- Writes the lease of a prediction, and adds it to the reply.
local function hold(id, queued_at, token, verdict, job)
  write_lease(id, token, now, lease, verdict == 'expired')
  reply[#reply + 1] = { id, queued_at, job or false, token, verdict }
end

-- Leases a prediction to this worker; false if the reply is large enough without it.
local function take(id, queued_at, job, tries)
  bytes = bytes + (job and #job or 0)
  if #reply > 3 and bytes > tonumber(most_bytes) then
    return false
  end
  local verdict, try = verdict_of(id, tonumber(queued_at), job), tonumber(tries or 0) or 0
  try = verdict == '' and try + 1 or try
  local token = string.format('%s:%d:%d', worker, try, now)
  -- First what fails where a shared key was overwritten: the others are the prediction's own.
  redis.call('HSET', CLAIMED, id, queued_at .. ' ' .. token)
  redis.call('HSET', HELD .. worker, id, token)
  hold(id, queued_at, token, verdict, job)
  if verdict == '' then
    redis.call('SET', TRIES .. id, try, 'EX', 86400)
    announce(id, 'status', string.format('{"status":"running","try":%d}', try))
  end
  return true
end

-- Requeues predictions whose leases ran out.
local function recover()
  local company = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. now, 'LIMIT', 0, 1000)) do
    local queued_at, token = claimed(id)
    if queued_at then
      local holder = worker_of(token)
      local deaths = tonumber(get(TRIES .. id)) or 1
      if holder == worker then
        deaths = math.max(0, deaths - 1) -- this worker lives: it sent this claim
        redis.call('SET', TRIES .. id, deaths, 'EX', 86400)
      else
        local lost = field(PREDICTION .. id, 'lost') or ''
        redis.pcall('HSET', PREDICTION .. id, 'lost', string.format('%s%d %s\n', lost, now, token))
      end
      company[holder] = company[holder] or redis.call('HLEN', HELD .. holder)
      local suspicious = math.max(1, max_tries - 1)
      count('recovered')
      put_back(id, queued_at, token, now, deaths, max_tries, suspicious, company[holder])
    else
      redis.call('ZREM', LEASES, id)
    end
  end
end

-- Leases suspects to this worker if it is, or can be, the one that is kept for them; whether it is.
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
  for n, id in ipairs(holds > 0 and {} or redis.call('ZRANGE', SUSPECTS, 0, most - 1)) do
    most = math.min(most, group_of(id) or 1)
    local job, tries = unpack(redis.call('MGET', JOB .. id, TRIES .. id))
    if n > most or not take(id, claimed(id) or now, job, tries) then
      break
    end
    redis.call('ZREM', SUSPECTS, id)
  end
  return true
end

-- Leases what is due; whether more may be.
local function serve_line()
  local due = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #due, 2 do
    local id, queued_at = due[i], due[i + 1]
    if #id > 64 or not string.find(id, '^[%w_-]+$') then
      redis.call('ZREM', QUEUE, id)
      reply[#reply + 1] = { id, queued_at, false, '', 'dropped' }
    elseif redis.call('ZSCORE', LEASES, id) then
      -- Its lease ran out, and it is not yet time to say that its worker died.
    else
      local job, tries, holder = unpack(redis.call('MGET', JOB .. id, TRIES .. id, IN_PROGRESS .. id))
      local held = holder and redis.call('PTTL', IN_PROGRESS .. id) or -1
      if held >= 0 then
        -- An arq worker without leases runs it: look again when its key has expired.
        redis.call('ZADD', QUEUE, now + held + 1, id)
      elseif not take(id, queued_at, job, tries) then
        return true
      end
    end
  end
  return #due / 2 == most
end

-- Returns what this worker holds: the reply to its last claim was lost. A lease may have run out:
-- the heartbeat would renew it, though the worker does not know of it.
local function repeat_reply()
  local held = redis.call('HGETALL', HELD .. worker)
  for i = 1, #held, 2 do
    local id, queued_at, token = held[i], claimed(held[i])
    if token == held[i + 1] and redis.call('ZSCORE', LEASES, id) then
      local job = get(JOB .. id)
      hold(id, queued_at, token, verdict_of(id, tonumber(queued_at), job), job)
      reply[2] = (group_of(id) or 0) > 0 and 1 or reply[2]
    end
  end
  if reply[2] == 1 and (get(QUARANTINE) or worker) == worker then
    redis.call('SET', QUARANTINE, worker, 'PX', lease)
  end
end

if is_repeat == '1' then
  repeat_reply()
  return reply
end
-- A store that was down or frozen lets leases run out whose holders only wait to renew them. This
-- call may have waited with them: they go first.
if may_recover == '1' and now - sent_at < lease / 4 then
  recover()
end
if serve_suspects() then
  reply[2] = 1
elseif not serve_line() then
  reply[3] = 0
  redis.call('DEL', WAKE) -- the tokens that are left would wake for nothing
end
if #reply > 3 then
  redis.call('PEXPIRE', HELD .. worker, 86400000)
end
return reply
