-- suspects: predictions that may be what ends their workers, set apart from the others.
--
-- Guarantees: a suspect shares a worker with nobody but suspects, so that the line goes on. Of those
-- that ended such a worker at most half share the next one: what does it is found in as many
-- steps as its company can be halved, and given up when it was alone. What was in its company is not.
--

-- Returns a prediction that its worker did not finish to its place in the queue, or sets it apart.
-- `strikes` of `most`: how often that happened, and how often it may; `suspicious`: from how many on
-- it is a suspect; `company`: how many its worker ran.
local function put_back(id, queued_at, token, now, strikes, most, suspicious, company)
  redis.call('DEL', IN_PROGRESS .. id)
  redis.call('ZREM', LEASES, id)
  redis.call('HDEL', CLAIMED, id)
  redis.call('ZADD', QUEUE, 'XX', queued_at, id)
  if strikes >= most and (company == 1 or most == 1) then
    redis.call('HSET', PREDICTION .. id, 'group', 0)
    return
  end
  local group = tonumber(field(PREDICTION .. id, 'group'))
  if strikes >= suspicious then
    group = group and math.max(1, math.floor(company / 2)) or company
    redis.call('HSET', PREDICTION .. id, 'group', group)
  end
  -- Once a suspect it stays one until it ends, though its worker went in order, or lives.
  if group and group > 0 then
    redis.call('HSET', CLAIMED, id, queued_at .. ' ' .. token)
    redis.call('ZADD', SUSPECTS, now, id)
    redis.call('ZADD', QUEUE, 'XX', 'inf', id)
  end
end
