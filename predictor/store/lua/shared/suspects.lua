-- suspects: predictions that may be what ends their workers, set apart from the others.
-- Guarantees: a suspect shares a worker with suspects only, so that the line goes on. Of those that
-- ended such a worker at most half share the next one: the culprit is found in as many steps as its
-- company can be halved, and given up when it was alone. The others are not.

-- How many suspects may share its next worker; 0: it is to be given up; nil: it is no suspect.
local function group_of(id)
  return tonumber(field(PREDICTION .. id, 'group'))
end

-- Returns a prediction that its worker did not finish to its place in the queue, or sets it apart.
-- `strikes` of `most`: how often that happened, and how often it may; `suspicious`: from how many on
-- it is a suspect; `company`: how many its worker ran.
local function put_back(id, queued_at, token, now, strikes, most, suspicious, company)
  keep_events(id, token)
  redis.call('DEL', IN_PROGRESS .. id)
  redis.call('ZREM', LEASES, id)
  redis.call('HDEL', CLAIMED, id)
  redis.call('ZADD', QUEUE, 'XX', queued_at, id)
  if strikes >= most and (company == 1 or most == 1) then
    redis.call('HSET', PREDICTION .. id, 'group', 0)
    return
  end
  local group = group_of(id)
  if strikes >= suspicious then
    group = group and math.max(1, math.floor(company / 2)) or company
    redis.call('HSET', PREDICTION .. id, 'group', group)
  end
  -- Once a suspect it stays one until it ends, though its worker stopped in order, or lives.
  if group and group > 0 then
    redis.call('HSET', CLAIMED, id, queued_at .. ' ' .. token)
    redis.call('ZADD', SUSPECTS, now, id)
    redis.call('ZADD', QUEUE, 'XX', 'inf', id)
  end
end
