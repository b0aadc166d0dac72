-- submit: puts a prediction into the queue, or finds that it, or its idempotent twin, is there.
--
-- Guarantees: all of it or nothing is written; repeating it with the same id, because a reply was
-- lost, changes nothing and answers the same. One idempotency key belongs to one prediction, however
-- many submit it at once, for as long as that one is known. One waiting worker is woken.
--
-- Uses announce, raise_life
-- KEYS  1 queue  2 leases  3 wake  4 pace  5 events  6 webhook  7 idempotency key, '' for none
--       8 deliveries
-- ARGV  1 id  2 job as JSON  3 time to live of the job, ms  4 how many may wait, 0: any number
--       5 fingerprint of the request  6 time to live of what goes with it, ms  7 webhook's URL or ''
--       8 job prefix  9 result prefix
-- Answers { what, id, now, place in the queue, pace … }, what: 'accepted', 'replayed' with the id of
-- the twin, 'mismatch' (the key belongs to another request), or 'full'.
local time = redis.call('TIME')
-- To the microsecond, or those of one millisecond would stand in the order of their ids.
local now = time[1] * 1000 + time[2] / 1000

local function answer(what, id)
  local pace = redis.pcall('HMGET', KEYS[4], 'count', 'at', 'since', 'run')
  local rank = redis.call('ZRANK', KEYS[1], id)
  return { what, id, math.floor(now), rank or 0, pace[1], pace[2], pace[3], pace[4] }
end

local function is_known(id)
  return redis.call('EXISTS', ARGV[8] .. id, ARGV[9] .. id) > 0
    or redis.call('ZSCORE', KEYS[1], id)
end

if KEYS[7] ~= '' then
  local twin = redis.pcall('HMGET', KEYS[7], 'id', 'fingerprint')
  if twin[1] and is_known(twin[1]) then
    if twin[2] ~= ARGV[5] then
      return answer('mismatch', ARGV[1])
    end
    -- A write, so that who waits for replicas waits for the twin.
    redis.call('PEXPIRE', KEYS[7], ARGV[6])
    return answer(twin[1] == ARGV[1] and 'accepted' or 'replayed', twin[1])
  end
end
if is_known(ARGV[1]) then
  return answer('accepted', ARGV[1])
end
local limit = tonumber(ARGV[4])
if limit > 0 and redis.call('ZCARD', KEYS[1]) - redis.call('ZCARD', KEYS[2]) >= limit then
  return answer('full', ARGV[1])
end
redis.call('SET', ARGV[8] .. ARGV[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
announce(KEYS[5], 'status', '{"status":"queued"}')
redis.call('PEXPIRE', KEYS[5], ARGV[6])
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[6], 'url', ARGV[7])
  redis.call('PEXPIRE', KEYS[6], ARGV[6])
  -- A deliverer looks at it when it may have expired in the queue: that is an end, too.
  redis.call('ZADD', KEYS[8], now + ARGV[3] + 1, ARGV[1])
  raise_life(KEYS[8], ARGV[6])
end
if KEYS[7] ~= '' then
  redis.call('DEL', KEYS[7])
  redis.call('HSET', KEYS[7], 'id', ARGV[1], 'fingerprint', ARGV[5])
  redis.call('PEXPIRE', KEYS[7], ARGV[6])
end
if redis.pcall('LPUSH', KEYS[3], 1) == 1 then
  redis.call('PEXPIRE', KEYS[3], 60000)
end
redis.pcall('LTRIM', KEYS[3], 0, 999)
return answer('accepted', ARGV[1])
