"""The name and the life of every key, arq's and ours.

A prediction lives in arq's own keys, so that any arq tool can read it and any arq producer can
enqueue. A name that ends in a colon is followed by the prediction's id, unless its comment says
otherwise. The scripts know each by the same name. Scores and times are in ms since 1970.
"""

#: arq: sorted set, id → when it is due; while a worker runs it, the end of its lease. An id is in
#: it from submit until its result is written.
QUEUE = "arq:queue"
#: arq: the job as JSON. Removed with the result.
JOB = "arq:job:"
#: arq: the token of its run (worker:try:start). Lives for the lease, renewed at a third of it.
IN_PROGRESS = "arq:in-progress:"
#: arq: how often it was started. Removed with the result; lives for a day past the last start.
TRIES = "arq:retry:"
#: arq: the result as JSON. Lives for the result's time to live.
RESULT = "arq:result:"
#: arq: a worker's sign of life; the host's name follows. Lives for seconds.
HEALTH = "arq:queue:health-check:"

#: Sorted set, id → end of its lease. Members go with the result or the lease.
LEASES = "predictor:leases"
#: Hash, id → its score in the queue before, and its token. Members go with LEASES' or SUSPECTS'.
CLAIMED = "predictor:claimed"
#: Hash of what a worker, whose name follows, holds: id → token. Lives for a day past its last
#: claim or renewal.
HELD = "predictor:held:"
#: Sorted set of the predictions that may be what ends their workers → since when.
SUSPECTS = "predictor:suspects"
#: Sorted set, id → when its `Cancel-After` is over. Members go when it has ended.
DEADLINES = "predictor:deadlines"
#: The worker that is kept for suspects. Lives for the lease, renewed with it.
QUARANTINE = "predictor:quarantine"
#: A worker that serves the line while there are suspects. Lives for seconds.
LINE = "predictor:line"
#: The latest time that a script has seen. Lives for a day.
CLOCK = "predictor:clock"
#: Written to see whether the store takes what is written. Lives for a second.
PROBE = "predictor:probe"
#: List of wake tokens, one for each submit at most. A hint: the queue is the truth.
WAKE = "predictor:wake"
#: List of ids to cancel for one worker, whose name follows. A hint, as WAKE. Lives for a minute.
CANCEL_REQUESTS = "predictor:cancel-requests:"
#: How many predictions end per second, how long they run, and the sums of all times: seven numbers,
#: see finish.lua. Lives for ever: sums only rise.
TIMES = "predictor:times"
#: When the token bucket of a name, whose id in 8 characters follows, is full. Lives until then.
RATE = "predictor:rate:"
#: Hash, name as in RATE → how many of its predictions are in QUEUE. Members go with those.
OPEN = "predictor:open"
#: Hash of counts, whose names metrics.py and the scripts know. Lives for ever: counters only rise.
METRICS = "predictor:metrics"
#: The number of the last counts that an api process, whose name follows, has added. For a day.
COUNTED = "predictor:counted:"
#: Sorted set, description of a worker as JSON → until when it is alive. Lives for a day past the
#: last heartbeat.
WORKERS = "predictor:workers"
#: Hash of the id and the fingerprint of a request; the key's digest follows. Lives as long as its
#: prediction is known.
IDEMPOTENCY = "predictor:idempotency:"
#: Hash of what else is known: queue_ttl and cancel_after (ms from its submit until it ends, if
#: it does not run, and whatever it does), its idempotency key, its waiter (channel), mode (if it
#: is sync), canceled (if it is to be, though it runs), progress, run and last (which run has
#: written how many events), requeued (how often), group (how many may share its next worker),
#: lost (tries whose workers died: lines of ms and token). Lives until it has ended; with a key
#: or progress, as long as it is known.
PREDICTION = "predictor:prediction:"
#: List of its events, if its state does not tell them, and channel for their kinds. Lives as long
#: as the prediction is known.
EVENTS = "predictor:events:"
#: Channel for the results of what one api process waits for, whose name follows.
ENDED = "predictor:events:ended:"
#: Hash of what is to be delivered where, and the attempts. Lives for a day past the result.
WEBHOOK = "predictor:webhook:"
#: Sorted set, id → when its webhook is due. Members go when it is delivered or given up; it lives
#: as long as its youngest member may.
DELIVERIES = "predictor:deliveries"
#: List of tokens, one for each new delivery at most. A hint, as WAKE.
DELIVERY_WAKE = "predictor:delivery-wake"
#: Ms past its result for which a webhook is kept.
DELIVERY_TTL = 86_400_000
