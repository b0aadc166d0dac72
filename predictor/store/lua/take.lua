-- take: takes tokens of a name's bucket, for sync predictions that an api process will run.
-- Guarantees: as in shared/quota.lua. A repeated call takes others: tokens are lost, never doubled.
--
-- ARGV  owner: what the name's ids begin with; interval, burst, most: as in take_tokens.
-- Returns how many were taken, and the ms until there is one more.
local owner, interval, burst, most = unpack(ARGV)
return { take_tokens(owner_of(owner), tonumber(interval), tonumber(burst), tonumber(most), now_ms()) }
