-- metrics: all that is counted, what waits and runs, and the workers that are alive, at one moment.
-- Guarantees: nothing is written, and no key is scanned. Suspects, which stand at the end of the queue,
-- wait as long as the one that was set apart first.
--
-- Returns { counts: name, count, …; how many wait; ms since the oldest of them was submitted; how many
-- run; a description of each worker }.
local now = now_ms()
local queued, running = redis.call('ZCARD', QUEUE), redis.call('ZCARD', LEASES)
local oldest, suspect = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2], redis.call('ZRANGE', SUSPECTS, 0, 0)[1]
local since = math.min(tonumber(oldest) or now, tonumber(suspect and claimed(suspect)) or now)
local counts, workers = redis.pcall('HGETALL', METRICS), redis.pcall('ZRANGEBYSCORE', WORKERS, now, '+inf')
counts = counts.err and {} or counts
local sums = { string.match(get(TIMES) or '', '(%d+) (%d+) (%d+)$') }
for i, name in ipairs(sums[1] and { 'run async us', 'run sync us', 'queue_wait us' } or {}) do
  counts[#counts + 1] = name
  counts[#counts + 1] = sums[i]
end
return {
  counts,
  math.max(0, queued - running),
  math.floor(math.max(0, now - since)),
  running,
  workers.err and {} or workers,
}
