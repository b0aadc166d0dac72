-- finish: ends a prediction with its result.
-- Guarantees: the first finisher wins, whoever holds the lease, and the result that it wrote never
-- changes; repeating it changes nothing and returns the same. After its time a prediction does not
-- succeed any more: it may have been read as timed out.
--
-- ARGV  ended: one of prediction.OUTCOMES; of one that ran, behind spaces, the buckets of its run and
--       its wait, and these times in microseconds.
-- Returns 1, of a sync one 2; 0 if another had ended it; -1 if its time is over, and the result does
-- not say so.
local id, result, result_ttl, worker, started, ended = unpack(ARGV)
local outcome, buckets, run_us, wait_us = string.match(ended, '^(%S+)( %S+ %S+) (%d+) (%d+)$')
outcome = outcome or ended
local queued_at = submitted_at(id)
if not queued_at then
  return redis.pcall('GET', RESULT .. id) == result and 1 or 0
end
local now = now_ms()
if outcome ~= 'timed_out' and outcome ~= 'expired' and is_late(id, queued_at, now) then
  return -1
end
local mode = settle(id, result, result_ttl, outcome .. (buckets or ''))
redis.call('HDEL', HELD .. worker, id)
if buckets then
  count('run ' .. mode .. ' us', run_us)
  count('queue_wait us', wait_us)
end

-- How many ended lately, a count that decays within a minute or so; since when it is counted; and how
-- many seconds a run takes, the last ten or so counting most.
now = now / 1000
local took = math.max(0, now - started / 1000)
local count, at, since, run = unpack(throughput())
count, at, since, run = tonumber(count), tonumber(at), tonumber(since), tonumber(run)
if not (count and at and since and run) then
  count, at, since, run = 0, now, now, took
end
count, run = count * math.exp(math.min(at - now, 0) / 60) + 1, run + 0.1 * (took - run)
redis.call('SET', THROUGHPUT, table.concat({ count, now, since, run }, ' '), 'PX', 600000)
return mode == 'sync' and 2 or 1
