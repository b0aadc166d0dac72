"""The name and the life of every key, arq's and ours.

A prediction lives in arq's own keys, so that any arq tool can read it and any arq producer can
enqueue. Where a name ends in a colon, the prediction's id follows, or what its comment says. The
scripts know each by the same name.
"""

from arq import constants as arq

#: arq: sorted set, id → when it is due, ms since 1970; while a worker runs it, the end of its
#: lease. An id is in it from submit until its result is written.
QUEUE = arq.default_queue_name
#: arq: the job as JSON. Removed with the result.
JOB = arq.job_key_prefix
#: arq: who runs it (worker:try). Lives for the lease, renewed at a third of it.
IN_PROGRESS = arq.in_progress_key_prefix
#: arq: how often it was started. Removed with the result; lives for a day past the last start.
TRIES = arq.retry_key_prefix
#: arq: the result as JSON. Lives for the result's time to live.
RESULT = arq.result_key_prefix
#: arq: a worker's sign of life, one for each host, whose name follows. Lives for seconds.
HEALTH = QUEUE + arq.health_check_key_suffix + ":"

#: ours: sorted set, id → end of its lease, ms. Members go with the result or the lease.
LEASES = "predictor:leases"
#: ours: hash, id → the score that it was queued with, its turn, and its in-progress value. Members
#: go with LEASES', or SUSPECTS'.
CLAIMED = "predictor:claimed"
#: ours: hash of what a worker, whose name follows, holds: id → in-progress value. Lives for a day
#: past its last claim or renewal.
HELD = "predictor:held:"
#: ours: sorted set of the predictions that may be what ends their workers → since when, ms.
SUSPECTS = "predictor:suspects"
#: ours: the worker that is kept for suspects. Lives for the lease, renewed with it.
QUARANTINE = "predictor:quarantine"
#: ours: a worker that serves the line while there are suspects. Lives for seconds.
LINE = "predictor:line"
#: ours: the latest time that a script has seen, ms. Lives for a day.
CLOCK = "predictor:clock"
#: ours: written to see whether the store takes what is written. Lives for a second.
PROBE = "predictor:probe"
#: ours: hash of the ids that are to be canceled though they run. Members go with the result.
CANCELS = "predictor:cancels"
#: ours: list of wake tokens, one for each submit at most. A hint: the queue is the truth.
WAKE = "predictor:wake"
#: ours: list of ids for one worker to look at, whose name follows. A hint: CANCELS is the truth.
#: Lives for a minute.
CANCEL_REQUESTS = "predictor:cancel-requests:"
#: ours: hash, how many predictions end per second, and how long they run. Lives for ten minutes
#: past the last end.
THROUGHPUT = "predictor:throughput"
#: ours: hash of the id and the fingerprint of a request; the key's digest follows. Lives exactly as
#: long as its prediction is known.
IDEMPOTENCY = "predictor:idempotency:"
#: ours: hash of what else is known of a prediction: queue_ttl and cancel_after (ms from its submit
#: until it ends, if it does not run, and whatever it does), its idempotency key,
#: progress, run and last (which run said how many events), requeued (how often), group (how many
#: may share its next worker). Lives as long as the prediction is known.
PREDICTION = "predictor:prediction:"
#: ours: stream of what happened to a prediction, and channel on which it is said that something
#: did. Lives as long as the prediction is known.
EVENTS = "predictor:events:"
#: ours: hash of what is to be delivered where, and what came of it. Lives for a day past the end of
#: the prediction, at least.
WEBHOOK = "predictor:webhook:"
#: ours: sorted set, id → when its webhook is due, ms. Members go when it is delivered or given up;
#: it lives as long as its youngest member may.
DELIVERIES = "predictor:deliveries"
#: ours: list of tokens, one for each new delivery at most. A hint, as WAKE.
DELIVERY_WAKE = "predictor:delivery-wake"

#: Ms past its result for which a webhook, and what came of it, is kept.
DELIVERY_TTL = 86_400_000
