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
#: ours: hash, how many predictions end per second, and how long they run. Lives for ten minutes
#: past the last end.
PACE = "predictor:pace"
#: ours: hash of the id and the fingerprint of a request; the key's digest follows. Lives as long as
#: its prediction may wait and be kept.
IDEMPOTENCY = "predictor:idempotency:"
#: ours: stream of what happened to a prediction, and channel on which it is said that something
#: did. Lives as the job does, then as the result.
EVENTS = "predictor:events:"
#: ours: hash of a run's last progress, and of which run and event that is. Lives as EVENTS.
RUN = "predictor:run:"
#: ours: hash of what is to be delivered where, and what came of it. Lives for a day past the end of
#: the prediction, at least.
WEBHOOK = "predictor:webhook:"
#: ours: sorted set, id → when its webhook is due, ms. Members go when it is delivered or given up;
#: it lives as long as its youngest member may.
DELIVERIES = "predictor:deliveries"
#: ours: list of tokens, one for each new delivery at most. A hint, as WAKE.
DELIVER = "predictor:deliver"

#: Seconds after which what was to be delivered is given up.
DELIVERY_TTL = 86400.0

#: What each of our shared keys, and the queue, must be.
TYPES = {
    QUEUE: "zset",
    LEASES: "zset",
    TURNS: "hash",
    CANCELS: "hash",
    WAKE: "list",
    PACE: "hash",
    DELIVERIES: "zset",
    DELIVER: "list",
}


def to_settle(id_: str) -> list[str]:
    """What settle.lua works on."""
    ours = [LEASES, TURNS, CANCELS, JOB + id_, IN_PROGRESS + id_, TRIES + id_, RESULT + id_]
    return [QUEUE, *ours, EVENTS + id_, RUN + id_, WEBHOOK + id_, DELIVERIES, DELIVER]


def lives(result_ttl: float) -> tuple[int, int]:
    """How long settle.lua keeps a result, and what is to be delivered; ms."""
    return round(result_ttl * 1000), round((DELIVERY_TTL + result_ttl) * 1000)
