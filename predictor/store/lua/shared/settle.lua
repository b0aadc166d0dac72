-- settle: writes the result of a prediction and removes what was kept for running it.
-- Guarantees: the result comes first, so that an error leaves all as it was. A webhook is due at
-- once, with a result of its own. The idempotency key lives exactly as long as the result.

-- Removes what is kept of a prediction that has not ended, but for its record; and more keys.
local function forget(id, ...)
  redis.call('DEL', JOB .. id, IN_PROGRESS .. id, TRIES .. id, ...)
  if redis.call('ZREM', QUEUE, id) == 1 then
    count_open(owner_of(id), -1)
  end
  if redis.call('ZREM', LEASES, id) == 0 then
    redis.call('ZREM', SUSPECTS, id)
  end
  redis.call('HDEL', CLAIMED, id)
end

-- Has a webhook sent from now on; an error in the reply says that it is not.
local function make_due(id, result_ttl)
  local now, life = now_ms(), result_ttl + DELIVERY_TTL
  redis.pcall('HSET', WEBHOOK .. id, 'state', 'pending', 'since', math.floor(now))
  raise_life(WEBHOOK .. id, life)
  local reply = redis.pcall('ZADD', DELIVERIES, now, id)
  raise_life(DELIVERIES, life)
  wake(DELIVERY_WAKE)
  return reply
end

-- `outcome`: as it is counted.
local function settle(id, record, result, result_ttl, outcome)
  redis.call('SET', RESULT .. id, result, 'PX', result_ttl)
  if record.key or record.progress then
    redis.call('PEXPIRE', PREDICTION .. id, result_ttl)
    forget(id)
  else
    forget(id, PREDICTION .. id)
  end
  if record.takes < math.huge then
    redis.call('ZREM', DEADLINES, id)
  end
  if announce(id, 'completed', '') ~= 0 then
    redis.call('PEXPIRE', EVENTS .. id, result_ttl)
  end
  if record.waiter then
    redis.pcall('PUBLISH', record.waiter, id .. ' ' .. (#result <= 65536 and result or ''))
  end
  if record.key then
    redis.call('PEXPIRE', IDEMPOTENCY .. record.key, result_ttl)
  end
  if redis.call('EXISTS', WEBHOOK .. id) == 1 then
    redis.pcall('HSET', WEBHOOK .. id, 'result', result)
    make_due(id, result_ttl)
  end
  count('predictions ' .. record.mode .. ' ' .. outcome)
end

-- Settles a prediction that no worker ends; returns its result. `result` has 0 for what is filled in.
local function settle_unrun(id, record, result, queued_at, result_ttl)
  local known = {
    t = string.format('"t":%d', tonumber(get(TRIES .. id)) or 0),
    et = string.format('"et":%d', math.max(0, math.min(queued_at, 253402300799000))),
    ft = string.format('"ft":%d', now_ms()),
  }
  result = string.gsub(result, '"id":""', '"id":"' .. id .. '"', 1)
  result = string.gsub(result, '"(%w+)":0', known)
  settle(id, record, result, result_ttl, string.match(result, '"code":"([%w_]+)"'))
  return result
end

local function settle_late(id, record, queued_at, result_ttl)
  local tries = tonumber(get(TRIES .. id)) or 0
  return settle_unrun(id, record, tries > 0 and TIMED_OUT or EXPIRED, queued_at, result_ttl)
end
