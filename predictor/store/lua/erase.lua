-- erase: removes what is kept of a prediction that has ended.
-- Guarantees: its input, its result, its events, its idempotency key and its webhook are gone; one
-- that has not ended is left alone. One whose time is over has ended.
--
-- Returns 'erased', result and mode of one that ends by this, 'active', or nil for an unknown id.
local id = ARGV[1]
local queued_at, record = submitted_at(id), record_of(id)
if queued_at and left_of(id, record, queued_at, now_ms()) > 0 then
  return 'active'
end
local late = queued_at and { settle_late(id, record, queued_at, 1), record.mode }
if record.key then
  redis.call('DEL', IDEMPOTENCY .. record.key)
end
forget(id)
redis.call('ZREM', DELIVERIES, id)
local left = redis.call('DEL', RESULT .. id, EVENTS .. id, PREDICTION .. id, WEBHOOK .. id)
return late or left > 0 and 'erased' or nil
