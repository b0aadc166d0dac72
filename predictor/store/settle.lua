-- settle: writes the result of a prediction and removes what was kept for running it.
--
-- Guarantees: the result comes first, so that an error leaves all as it was. Who wants to be told by
-- a webhook has a delivery from the same moment on, with a result of its own.
--
-- Uses announce, raise_life
-- KEYS  1 queue  2 leases  3 turns  4 cancels  5 job  6 in-progress  7 tries  8 result
--       9 events  10 run  11 webhook  12 deliveries  13 deliverer's wake
-- ARGV  1 id  2 result as JSON  3 time to live of the result, ms  4 time to live of a delivery, ms
-- Only the store knows when a prediction was submitted that never ran.
local function submitted_at(result, ms)
  local at = math.max(0, math.min(ms, 253402300799000))
  return (string.gsub(result, '"et":0', string.format('"et":%d', at), 1))
end

local function settle()
  local id = ARGV[1]
  redis.call('SET', KEYS[8], ARGV[2], 'PX', ARGV[3])
  redis.call('ZREM', KEYS[1], id)
  redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
  announce(KEYS[9], 'completed', '')
  redis.call('PEXPIRE', KEYS[9], ARGV[3])
  redis.call('PEXPIRE', KEYS[10], ARGV[3])
  if redis.call('EXISTS', KEYS[11]) == 1 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + time[2] / 1000
    redis.pcall('HSET', KEYS[11], 'result', ARGV[2], 'state', 'pending', 'since', math.floor(now))
    redis.call('PEXPIRE', KEYS[11], ARGV[4])
    redis.pcall('ZADD', KEYS[12], now, id)
    raise_life(KEYS[12], ARGV[4])
    redis.pcall('LPUSH', KEYS[13], 1)
    redis.pcall('LTRIM', KEYS[13], 0, 99)
    redis.pcall('PEXPIRE', KEYS[13], 60000)
  end
end
