-- heal: removes keys that somebody overwrote with another type.
--
-- Guarantees: afterwards every other script can run. What such a key held was lost before.
--
-- KEYS  names
-- ARGV  the type that each must have, if it is there
-- Answers the names that were removed.
local removed = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= ARGV[i] then
    redis.call('DEL', key)
    removed[#removed + 1] = key
  end
end
return removed
