-- drop_wrong_types: removes shared keys that were overwritten with another type.
-- Guarantees: afterwards every other script can run. What such a key held was lost before, and
-- with the queue what was counted of it.
--
-- ARGV  names of more lists. Returns the names that were removed.
local types = {
  zset = { QUEUE, LEASES, SUSPECTS, DEADLINES, DELIVERIES, WORKERS },
  hash = { CLAIMED, OPEN, METRICS },
  list = { WAKE, DELIVERY_WAKE, unpack(ARGV) },
  string = { QUARANTINE, LINE, CLOCK, TIMES },
}
local removed = {}
for type, names in pairs(types) do
  for _, name in ipairs(names) do
    local found = redis.call('TYPE', name).ok
    if found ~= 'none' and found ~= type then
      redis.call('DEL', name, name == QUEUE and OPEN or name)
      removed[#removed + 1] = name
    end
  end
end
return removed
