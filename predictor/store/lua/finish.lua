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
local record, now = record_of(id), now_ms()
if outcome ~= 'timed_out' and outcome ~= 'expired' and left_of(id, record, queued_at, now) <= 0 then
  return -1
end
settle(id, record, result, result_ttl, outcome .. (buckets or ''))
redis.call('HDEL', HELD .. worker, id)

-- How many ended lately, a count that decays within a minute or so; when it was counted, and since when;
-- how many seconds a run takes, the last ten or so counting most; and all that async ones ran, sync ones
-- ran, and any waited, in microseconds.
local count, at, since, run, async_us, sync_us, waited_us =
  string.match(get(TIMES) or '', '^(%S+) (%S+) (%S+) (%S+) (%d+) (%d+) (%d+)$')
count, at, since, run = tonumber(count), tonumber(at), tonumber(since), tonumber(run)
now = now / 1000
local took = math.max(0, now - started / 1000)
if not (count and at and since and run) or now - at > 600 then
  count, at, since, run = 0, now, now, took
end
count, run = count * math.exp(math.min(at - now, 0) / 60) + 1, run + 0.1 * (took - run)
local is_sync, ran, waited = record.mode == 'sync', run_us or 0, wait_us or 0
local async_sum, sync_sum = (async_us or 0) + (is_sync and 0 or ran), (sync_us or 0) + (is_sync and ran or 0)
local sums = string.format('%d %d %d', async_sum, sync_sum, (waited_us or 0) + waited)
redis.call('SET', TIMES, table.concat({ count, now, since, run, sums }, ' '))
return is_sync and 2 or 1
