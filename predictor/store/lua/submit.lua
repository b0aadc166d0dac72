-- submit: puts a prediction into the queue, or finds it, or another with its idempotency key, there.
-- Guarantees: all of it or nothing is written; repeating it with the same id, because a reply was
-- lost, changes nothing and returns the same. One idempotency key belongs to one prediction, however
-- many submit it at once, for as long as that one is known. One waiting worker is woken.
--
-- ARGV  in ms; without cancel_after, key, webhook or waiter: ''. limit: how many may be queued, 0: any
--       number. waiter: a channel that gets the result. quotas: '', or interval (0: none) and burst, as in
--       take_tokens; how many of a name may be open, 0: any number; and how many are, besides those in
--       the queue. mode: 'sync', or not there.
-- Returns { outcome, id, now, place in the queue, TIMES, workers that are alive }; outcome:
-- 'accepted', 'replayed' with the id of the known one, 'mismatch' (the key belongs to another request),
-- 'full', 'open', or 'rate' with the ms until it may be accepted in the place.
local id, job, cancel_after, queue_ttl, limit, key, fingerprint, webhook, waiter,
  quotas, mode = unpack(ARGV)
local interval, burst, most, sync = string.match(quotas or '', '(%S+) (%S+) (%S+) (%S+)')
local now = clock()

local function answer(outcome, known)
  local place = redis.call('ZRANK', QUEUE, known) or 0
  local workers = tonumber(redis.pcall('ZCOUNT', WORKERS, now, '+inf')) or 0
  return { outcome, known, math.floor(now), place, get(TIMES) or '', workers }
end

local function refuse(outcome, reason, wait)
  count('rejected ' .. reason)
  return { outcome, id, math.floor(now), wait or 0, get(TIMES) or '', 0 }
end

local function is_known(known)
  return redis.call('EXISTS', JOB .. known, RESULT .. known) > 0
end

if key ~= '' then
  local found = redis.pcall('HMGET', IDEMPOTENCY .. key, 'id', 'fingerprint')
  if found[1] and (is_known(found[1]) or redis.call('ZSCORE', QUEUE, found[1])) then
    if found[2] ~= fingerprint then
      return answer('mismatch', id)
    end
    -- A write, so that a wait for replicas waits for that one, too.
    redis.call('HSET', IDEMPOTENCY .. key, 'id', found[1])
    return answer(found[1] == id and 'accepted' or 'replayed', found[1])
  end
end
if is_known(id) then
  return answer('accepted', id)
end
limit = tonumber(limit)
local waiting = limit > 0 and redis.call('ZCARD', QUEUE) or 0
if limit > 0 and waiting >= limit and waiting - redis.call('ZCARD', LEASES) >= limit then
  return refuse('full', 'queue_full')
end
local owner = owner_of(id)
if most and most ~= '0' then
  local open = owner == '' and redis.call('ZCARD', QUEUE) or tonumber(field(OPEN, owner)) or 0
  if open + sync >= tonumber(most) then
    return refuse('open', 'open')
  end
end
if interval and interval ~= '0' then
  local taken, wait = take_tokens(owner, tonumber(interval), tonumber(burst), 1, now)
  if taken == 0 then
    return refuse('rate', 'rate', wait)
  end
end
redis.call('SET', JOB .. id, job)
if redis.call('ZADD', QUEUE, 'NX', now, id) == 1 then
  count_open(owner, 1)
end
local record = { 'queue_ttl', queue_ttl }
for name, value in pairs({ cancel_after = cancel_after, key = key, waiter = waiter, mode = mode or '' }) do
  if value ~= '' then
    table.insert(record, name)
    table.insert(record, value)
  end
end
redis.call('HSET', PREDICTION .. id, unpack(record))
if cancel_after ~= '' then
  redis.call('ZADD', DEADLINES, now + cancel_after, id)
end
if key ~= '' then
  redis.call('DEL', IDEMPOTENCY .. key)
  redis.call('HSET', IDEMPOTENCY .. key, 'id', id, 'fingerprint', fingerprint)
end
if webhook ~= '' then
  local terms = string.match(job, '"k":({.-}),"et"') or ''
  redis.call('HSET', WEBHOOK .. id, 'url', webhook, 'trace', string.match(terms, '"trace":({.-})') or '')
end
wake(WAKE)
return answer('accepted', id)
