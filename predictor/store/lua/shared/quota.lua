-- quota: what a name may request: tokens of its bucket, and predictions that have not ended.
-- Guarantees: in any t ms, at most burst + t / interval tokens are taken, by however many processes. A
-- prediction is counted as open once, from its submit until it leaves the queue.

-- The name, in 8 characters, whose prediction an id is, or what ids begin with; '' without names.
local function owner_of(id)
  return string.sub(id, 9, 9) == '_' and string.sub(id, 1, 8) or ''
end

-- Takes up to `most` tokens, of which one is added each `interval` ms up to `burst`. What is kept is
-- when the bucket will be full. Returns how many were taken, and the ms until there is one more.
local function take_tokens(owner, interval, burst, most, now)
  local span = burst * interval
  local wait = math.min(math.max((tonumber(get(RATE .. owner)) or now) - now, 0), span)
  local taken = math.min(most, math.floor((span - wait) / interval + 1e-6))
  if taken > 0 then
    wait = wait + taken * interval
    redis.call('SET', RATE .. owner, now + wait, 'PX', math.ceil(wait))
  end
  return taken, math.max(0, math.ceil(wait + interval - span))
end

-- Counts a prediction of a name: 1 when it is submitted, -1 when it leaves the queue.
local function count_open(owner, change)
  if owner ~= '' and (tonumber(redis.pcall('HINCRBY', OPEN, owner, change)) or 0) <= 0 then
    redis.pcall('HDEL', OPEN, owner)
  end
end
