-- A server whose time is the history's own. Stands before a script, and shadows its `redis`.
--
-- The last argument is the time, µs since 1970. What is to be removed at some time is kept in a
-- sorted set, and removed when a script begins: a key is there until its millisecond has passed.
local redis = (function()
  local time = tonumber(table.remove(ARGV))
  local server, now, EXPIRIES = redis, math.floor(time / 1000), 'check:expiries'
  for _, key in ipairs(server.call('ZRANGEBYSCORE', EXPIRIES, '-inf', '(' .. now)) do
    server.call('DEL', key)
    server.call('ZREM', EXPIRIES, key)
  end

  local function expire(key, ms)
    if server.call('EXISTS', key) == 0 then
      return 0
    elseif tonumber(ms) <= 0 then
      server.call('DEL', key)
      server.call('ZREM', EXPIRIES, key)
    else
      server.call('ZADD', EXPIRIES, now + ms, key)
    end
    return 1
  end

  -- A key whose last member was taken is gone, and its time with it.
  local function shrink(how, name, key, ...)
    local answer = server[how](name, key, ...)
    if server.call('EXISTS', key) == 0 then
      server.call('ZREM', EXPIRIES, key)
    end
    return answer
  end

  local own = {
    TIME = function()
      return { string.format('%d', math.floor(time / 1e6)), string.format('%d', time % 1e6) }
    end,
    PEXPIRE = function(_, _, key, ms)
      return expire(key, ms)
    end,
    PTTL = function(_, _, key)
      if server.call('EXISTS', key) == 0 then
        return -2
      end
      local at = server.call('ZSCORE', EXPIRIES, key)
      return at and at - now or -1
    end,
    SET = function(how, _, key, value, unit, life)
      local answer = server[how]('SET', key, value)
      server.call('ZREM', EXPIRIES, key)
      if unit then
        local ms = assert(({ PX = 1, EX = 1000 })[unit], 'SET: only PX and EX are known') * life
        assert(ms > 0, "invalid expire time in 'set' command")
        expire(key, ms)
      end
      return answer
    end,
    DEL = function(how, _, ...)
      server.call('ZREM', EXPIRIES, ...)
      return server[how]('DEL', ...)
    end,
    ZREM = shrink,
    ZREMRANGEBYSCORE = shrink,
    HDEL = shrink,
  }

  -- What neither asks for the time, nor can take the last of anything.
  for name in
    string.gmatch(
      [[DECR EXISTS GET GETRANGE HGET HGETALL HINCRBY HKEYS HLEN HMGET HSET HSETNX INCR LLEN LPUSH MGET
      LRANGE PUBLISH RPUSH RPUSHX STRLEN TYPE ZADD ZCARD ZCOUNT ZRANGE ZRANGEBYSCORE ZRANK ZSCORE]],
      '%S+'
    )
  do
    own[name] = function(how, _, ...)
      return server[how](name, ...)
    end
  end

  local function through(how)
    return function(name, ...)
      return assert(own[name], 'the clock of the check does not know ' .. name)(how, name, ...)
    end
  end

  return setmetatable({ call = through('call'), pcall = through('pcall') }, { __index = server })
end)()
