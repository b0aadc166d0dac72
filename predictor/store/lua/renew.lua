-- renew: lengthens the leases that a living worker holds.
-- Guarantees: a lease that ran out is taken again if nobody else has claimed, or may claim, the
-- prediction; one that another has, or that was requeued, is left alone, and no longer counts as a
-- death: its worker lives. A run that takes longer than any may is not renewed. One whose time is
-- over stays with its worker, but does not read as running again.
--
-- Returns the ids that this worker need not go on with: canceled, late, or ended by another.
-- ARGV  about: a description of this worker, which is alive for another lease.
-- Raises WRONGTYPE where what counts was overwritten: nobody else would see it, and remove it.
local worker, lease, longest_run, about = unpack(ARGV)
local now, over = clock(), {}
redis.call('HLEN', METRICS)
redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now)
redis.pcall('ZADD', WORKERS, now + lease, about)
redis.pcall('PEXPIRE', WORKERS, 86400000)

local held = redis.call('HGETALL', HELD .. worker)
for i = 1, #held, 2 do
  local id, token = held[i], held[i + 1]
  local is_overdue = now - string.match(token, '%d+$') > tonumber(longest_run)
  local _, kept = claimed(id)
  local is_mine = (kept or get(IN_PROGRESS .. id)) == token
  if not redis.call('ZSCORE', QUEUE, id) then
    redis.call('HDEL', HELD .. worker, id)
    over[#over + 1] = id
  elseif not is_mine or not redis.call('ZSCORE', LEASES, id) then
    redis.call('HDEL', HELD .. worker, id)
    if not is_overdue and tonumber(get(TRIES .. id) or 0) > 0 then
      redis.call('DECR', TRIES .. id)
      if group_of(id) == 0 then
        redis.call('HDEL', PREDICTION .. id, 'group') -- it was to be given up for that
      end
    end
  else
    local record = record_of(id)
    local late = left_of(id, record, submitted_at(id), now) <= 0
    if not is_overdue then
      write_lease(id, token, now, lease, late)
    end
    if late or record.canceled then
      over[#over + 1] = id
    end
  end
end
redis.call('PEXPIRE', HELD .. worker, 86400000)
if get(QUARANTINE) == worker then
  redis.call('PEXPIRE', QUARANTINE, lease)
end
return over
