-- clock: the store's time; when that has stepped back, all times that are kept move back with it.
-- Guarantees: everything waits as long as if there had been no step, and in the same order. Steps of
-- less than half a second are ignored. Scripts that write a time call it first, or that would move.
local function move_back(step)
  for _, key in ipairs({ QUEUE, LEASES, SUSPECTS, DEADLINES, DELIVERIES, WORKERS }) do
    local scores = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #scores, 2 do
      redis.call('ZADD', key, scores[i + 1] - step, scores[i])
    end
  end
  local leased = { QUARANTINE, LINE }
  for _, id in ipairs(redis.call('HKEYS', CLAIMED)) do
    local queued_at, token = claimed(id)
    if tonumber(queued_at) then
      redis.call('HSET', CLAIMED, id, string.format('%.17g %s', queued_at - step, token))
    end
    leased[#leased + 1] = IN_PROGRESS .. id
  end
  for _, key in ipairs(leased) do
    local left = redis.call('PTTL', key)
    if left > 0 then
      redis.call('PEXPIRE', key, math.max(1, math.floor(left - step)))
    end
  end
end

local function clock()
  local now, latest = now_ms(), tonumber(get(CLOCK))
  local stepped_back = latest and latest - now > 500
  if stepped_back then
    move_back(latest - now)
  end
  if stepped_back or not latest or now - latest > 100 then
    redis.call('SET', CLOCK, string.format('%.17g', now), 'PX', 86400000)
  end
  return now
end
