-- quota: what a name may request: tokens of its bucket, and predictions that have not ended.
-- Guarantees: in any t ms, at most burst + t / interval tokens are taken, by however many processes. A
-- prediction is counted as open from its submit until it leaves the queue, and once.

-- The name, in a few characters, with whose owner an id begins; empty where there are no names.
local function owner_of(id)
  return string.match(id, '^(%x%x%x%x%x%x%x%x)_') or ''
end

-- Takes up to `most` tokens, of which one is added each `interval` ms up to `burst`. What is kept is
-- when the bucket will be full. Returns how many were taken, and the ms until there is one more.
local function take_tokens(owner, interval, burst, most, now)
  local full_at = math.max(now, math.min(tonumber(get(RATE .. owner)) or now, now + burst * interval))
  local left = burst - (full_at - now) / interval
  local taken = math.max(0, math.min(most, math.floor(left + 1e-6)))
  if taken > 0 then
    full_at = full_at + taken * interval
    redis.call('SET', RATE .. owner, string.format('%.17g', full_at), 'PX', math.ceil(full_at - now))
  end
  return taken, math.max(0, math.ceil((1 - left + taken) * interval))
end

-- How many predictions of a name have not ended.
local function open_of(owner)
  return owner == '' and redis.call('ZCARD', QUEUE) or tonumber(field(OPEN, owner)) or 0
end

-- Counts a prediction whose id tells its owner: 1 when it is submitted, -1 when it leaves the queue.
local function count_open(id, change)
  local owner = owner_of(id)
  if owner ~= '' and (tonumber(redis.pcall('HINCRBY', OPEN, owner, change)) or 1) <= 0 then
    redis.pcall('HDEL', OPEN, owner)
  end
end
