-- All that the store holds at a time (ms): key → { value, ms that are left, or -1 }, as JSON. Of
-- lists: the length.
local now, EXPIRIES, state = ARGV[1], 'check:expiries', {}
local read = {
  string = function(key)
    return redis.call('GET', key)
  end,
  hash = function(key)
    return redis.call('HGETALL', key)
  end,
  zset = function(key)
    return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  end,
  list = function(key)
    return redis.call('LLEN', key)
  end,
}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local at = redis.call('ZSCORE', EXPIRIES, key)
  local left = at and at - now or -1
  if key ~= EXPIRIES and not (at and left < 0) then
    state[key] = { read[redis.call('TYPE', key).ok](key), left }
  end
end
return cjson.encode(state)
