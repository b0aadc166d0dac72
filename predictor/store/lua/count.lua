-- count: adds what an api process has counted by itself.
-- Guarantees: each part is added once, though it is sent again because a reply was lost.
--
-- ARGV  process; number: of this part, from 1; then name, count for each.
local process, number = ARGV[1], tonumber(ARGV[2])
if number > (tonumber(get(COUNTED .. process)) or 0) then
  redis.call('SET', COUNTED .. process, number, 'EX', 86400)
  for i = 3, #ARGV, 2 do
    count(ARGV[i], ARGV[i + 1])
  end
end
