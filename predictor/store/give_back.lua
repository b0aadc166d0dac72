-- give_back: returns predictions that a worker will not finish, as if it had never claimed them.
--
-- Guarantees: each takes its old place in the queue, its try is not counted, and a worker is woken
-- for it. One that is no longer this worker's is left alone; repeating it changes nothing.
--
-- Uses announce
-- KEYS  1 queue  2 leases  3 turns  4 wake
-- ARGV  1 job prefix  2 in-progress prefix  3 tries prefix  4 time to live of a job, ms
--       5 events prefix  6 webhook prefix  7 time to live of both, ms  then id, token for each
-- Answers how many went back.
local back = 0
for i = 8, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  if redis.pcall('GET', ARGV[2] .. id) == token then
    local turn = redis.call('HGET', KEYS[3], id)
    if turn then
      redis.call('ZADD', KEYS[1], 'XX', turn, id)
    end
    redis.call('DEL', ARGV[2] .. id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
    local tries = tonumber(string.match(token, ':(%d+):%d+$')) - 1
    if tries > 0 then
      redis.call('SET', ARGV[3] .. id, tries, 'EX', 86400)
    else
      redis.call('DEL', ARGV[3] .. id)
    end
    redis.call('PEXPIRE', ARGV[1] .. id, ARGV[4])
    redis.pcall('LPUSH', KEYS[4], 1)
    announce(ARGV[5] .. id, 'status', '{"status":"queued"}')
    redis.call('PEXPIRE', ARGV[5] .. id, ARGV[7])
    redis.call('PEXPIRE', ARGV[6] .. id, ARGV[7])
    back = back + 1
  end
end
if back > 0 then
  redis.call('PEXPIRE', KEYS[4], 60000)
end
return back
