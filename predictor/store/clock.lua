-- clock: the store's time; when that has stepped back, all that lies ahead moves back with it.
--
-- Guarantees: after a step back no prediction, lease or webhook waits for a time that was there
-- before. Steps of less than half a second are let be.
--
-- Uses basics
local function move_back(now, step)
  for _, key in ipairs({ QUEUE, LEASES, SUSPECTS, DELIVERIES }) do
    local ahead = redis.call('ZRANGEBYSCORE', key, '(' .. now, 'inf', 'WITHSCORES')
    for i = 1, #ahead, 2 do
      redis.call('ZADD', key, ahead[i + 1] - step, ahead[i])
    end
  end
  local turns = redis.call('HGETALL', TURNS)
  for i = 1, #turns, 2 do
    local turn, token = string.match(turns[i + 1], '^(%S+) (.*)$')
    if turn and tonumber(turn) > now then
      redis.call('HSET', TURNS, turns[i], string.format('%.17g %s', turn - step, token))
    end
    local held = redis.call('PTTL', IN_PROGRESS .. turns[i])
    if held > 0 then
      redis.call('PEXPIRE', IN_PROGRESS .. turns[i], math.max(1, math.floor(held - step)))
    end
  end
end

local function clock()
  local now, latest = now_ms(), tonumber(get(CLOCK))
  local stepped_back = latest and latest - now > 500
  if stepped_back then
    move_back(now, latest - now)
  end
  if stepped_back or not latest or now - latest > 100 then
    redis.call('SET', CLOCK, string.format('%.17g', now), 'PX', 86400000)
  end
  return now
end
