-- basics: what most scripts need.
-- Guarantees: a key that somebody overwrote with another type reads as if it were not there.
local function now_ms()
  local time = redis.call('TIME')
  -- To the microsecond, or those of one millisecond would stand in the order of their ids.
  return time[1] * 1000 + time[2] / 1000
end

local function text(value)
  return type(value) == 'string' and value or nil
end

local function get(key)
  return text(redis.pcall('GET', key))
end

local function field(key, name)
  return text(redis.pcall('HGET', key, name))
end

local function wake(key)
  if redis.pcall('LPUSH', key, 1) == 1 then
    redis.pcall('PEXPIRE', key, 60000)
  end
end

-- Lengthens the life of what several predictions share; never shortens it.
local function raise_life(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then
    redis.call('PEXPIRE', key, ms)
  end
end

-- Counts what has happened, in the very step in which it happens. A count that cannot be kept fails nothing.
local function count(name, by)
  redis.pcall('HINCRBY', METRICS, name, by or 1)
end
