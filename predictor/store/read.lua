-- read: a prediction's state at one moment.
--
-- Guarantees: a prediction between two states is never seen in neither.
--
-- KEYS  1 queue  2 turns  3 job  4 in-progress  5 tries  6 result  7 pace  8 run
-- ARGV  1 id
-- Answers { 'done', progress, result }, or { 'running' | 'queued' | 'expired', progress, now, turn,
-- place in the queue, tries, in-progress value, ms until it expires, pace … }; expired: in the queue, its job gone. nil
-- for an unknown id.
local progress = redis.pcall('HGET', KEYS[8], 'progress')
if type(progress) ~= 'string' then
  progress = ''
end
local result = redis.pcall('GET', KEYS[6])
if result then
  return { 'done', progress, type(result) == 'string' and result or '' }
end
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then
  return nil
end
local state = 'queued'
local holder = redis.pcall('GET', KEYS[4])
local expires_in = redis.call('PTTL', KEYS[3])
if holder then
  state = 'running'
elseif expires_in == -2 then
  state = 'expired'
end
local time = redis.call('TIME')
local tries = redis.pcall('GET', KEYS[5])
local turn = redis.pcall('HGET', KEYS[2], ARGV[1])
local pace = redis.pcall('HMGET', KEYS[7], 'count', 'at', 'since', 'run')
return {
  state,
  progress,
  math.floor(time[1] * 1000 + time[2] / 1000),
  type(turn) == 'string' and turn or score,
  redis.call('ZRANK', KEYS[1], ARGV[1]),
  type(tries) == 'string' and tries or '0',
  type(holder) == 'string' and holder or '',
  expires_in,
  pace[1], pace[2], pace[3], pace[4],
}
