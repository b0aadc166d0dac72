-- drop_wrong_types: removes keys that were overwritten with another type.
--
-- Guarantees: afterwards every other script can run. What such a key held was lost before.
--
-- ARGV  name, the type that it must have if it is there, for each
-- Answers the names that were removed.
local removed = {}
for i = 1, #ARGV, 2 do
  local kind = redis.call('TYPE', ARGV[i]).ok
  if kind ~= 'none' and kind ~= ARGV[i + 1] then
    redis.call('DEL', ARGV[i])
    removed[#removed + 1] = ARGV[i]
  end
end
return removed
