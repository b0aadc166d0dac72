"""The name and the life of every key, arq's and ours.

A prediction lives in arq's own keys, so that any arq tool can read it and any arq producer can
enqueue. Where a name ends in a colon, the prediction's id follows, or what its comment says.
"""

from arq import constants as arq

#: arq: sorted set, id → when it is due, ms since 1970; while a worker runs it, the end of its
#: lease. An id is in it from submit until its result is written.
QUEUE = arq.default_queue_name
#: arq: the job as JSON. Lives for the queue's time to live; without end while it runs.
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
#: ours: hash, id → the score that it was queued with, its turn. Members go with LEASES'.
TURNS = "predictor:turns"
#: ours: hash of the ids that are to be canceled though they run. Members go with the result.
CANCELS = "predictor:cancels"
#: ours: list of wake tokens, one for each submit at most. A hint: the queue is the truth.
WAKE = "predictor:wake"
#: ours: list of ids for one worker to look at, whose name follows. A hint: CANCELS is the truth.
#: Lives for a minute.
TOLD = "predictor:told:"
#: ours: hash, how many predictions end per second. Lives for ten minutes past the last end.
PACE = "predictor:pace"

#: What each of our shared keys, and the queue, must be.
TYPES = {QUEUE: "zset", LEASES: "zset", TURNS: "hash", CANCELS: "hash", WAKE: "list", PACE: "hash"}
