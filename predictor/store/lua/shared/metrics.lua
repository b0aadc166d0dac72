-- metrics: counts of what has happened, in one hash, each in the very step in which it happens.
-- Guarantees: a count that cannot be kept fails nothing else.
local function count(name, by)
  redis.pcall('HINCRBY', METRICS, name, by or 1)
end

-- How many workers are alive.
local function workers_alive(now)
  return tonumber(redis.pcall('ZCOUNT', WORKERS, now, '+inf')) or 0
end
