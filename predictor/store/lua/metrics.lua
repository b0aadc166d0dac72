-- metrics: all that is counted, what waits and runs, and the workers that are alive, at one moment.
-- Guarantees: nothing is written, and no key is scanned.
--
-- Returns { counts: name, count, …; how many wait; ms since the oldest of them was submitted; how many
-- run; a description of each worker }.
local now = now_ms()
local queued, running = redis.call('ZCARD', QUEUE), redis.call('ZCARD', LEASES)
local waiting, oldest = math.max(0, queued - running), redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]
local age = waiting > 0 and oldest and now - oldest or 0 -- of suspects, which wait at the end: -inf
local counts, workers = redis.pcall('HGETALL', METRICS), redis.pcall('ZRANGEBYSCORE', WORKERS, now, '+inf')
return {
  counts.err and {} or counts,
  waiting,
  math.floor(math.max(0, age)),
  running,
  workers.err and {} or workers,
}
