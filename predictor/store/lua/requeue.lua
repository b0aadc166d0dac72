-- requeue: returns predictions that a worker will not finish, as if it had never claimed them.
-- Guarantees: each takes its old place in the queue, its try is not counted, and a worker is woken
-- for it. Requeues are counted apart: a prediction that stops its worker again and again is set
-- apart, and given up. One that is no longer this worker's is left alone; repeating it changes
-- nothing.
--
-- ARGV  most, suspicious: see put_back; company: how many the worker ran when it was told to stop (0:
--       it was not); then id, token for each. Returns how many were requeued.
local worker, most, suspicious, company = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local back, now = 0, now_ms()
for i = 5, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local queued_at, holder = claimed(id)
  -- A lease that ran out goes back, too: else the worker's heartbeat would take it again.
  if holder == token and redis.call('ZSCORE', LEASES, id) then
    local strikes = company > 0 and redis.call('HINCRBY', PREDICTION .. id, 'requeued', 1) or 0
    put_back(id, queued_at, token, now, strikes, most, suspicious, company)
    redis.call('HDEL', HELD .. worker, id)
    if redis.call('DECR', TRIES .. id) <= 0 then
      redis.call('DEL', TRIES .. id)
    end
    wake(WAKE)
    announce(id, 'status', '{"status":"queued"}')
    back = back + 1
  end
end
if get(QUARANTINE) == worker and redis.call('HLEN', HELD .. worker) == 0 then
  redis.call('DEL', QUARANTINE)
end
return back
