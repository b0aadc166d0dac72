-- raise_life: lengthens the time to live of what several predictions share.
--
-- Guarantees: it is never shortened.
--
-- KEYS  none of its own: a part of other scripts
local function raise_life(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then
    redis.call('PEXPIRE', key, ms)
  end
end
