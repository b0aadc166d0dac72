"""The store's scripts in random histories, against a model; and that the check finds faults.

    uv run pytest tests/store/test_scripts.py --check-steps 300000 --check-seed 7 --timeout 0

The seed is printed; without one each run has another. A history that fails names its own: run it
alone with `--check-seed` and `--check-steps 1`.
"""

import logging
import random
from collections import Counter

import pytest
import redis

from predictor.store import scripts
from tests.store.check.facts import Violation
from tests.store.check.history import History

#: Steps of one history, before all has to end.
_LONG = 200

#: Steps within which a fault is found, at most.
_BOUND = 20_000


#: What must happen in some thousand steps: what did not happen was not checked.
SEEN = [
    *(
        "succeeded",
        "canceled",
        "expired",
        "timed_out",
        "given_up",
        "read: late",
        "cancel: canceling",
    ),
    *("submit: replayed", "submit: mismatch", "submit: full"),
    *("recovered", "set apart", "given apart", "uncounted", "taken again", "step back"),
]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What workers log of lost replies is no news here."""
    caplog.set_level(logging.CRITICAL, "predictor")


def _check(
    store: "redis.Redis", url: str, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int
) -> Counter[str]:
    """Run histories of that many steps together; how often what happened."""
    counts: Counter[str] = Counter()
    while counts["steps"] < steps:
        history = History(store, url, monkeypatch, seed)
        history.run(_LONG)
        counts += history.model.counts + Counter(steps=history.steps, histories=1)
        seed += 1
    return counts


def test_random_histories(
    store: "redis.Redis",
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    steps: int = pytestconfig.getoption("--check-steps")
    seed = pytestconfig.getoption("--check-seed") or random.randrange(1, 10**9)
    print(f"seed {seed}")
    counts = _check(store, redis_url, monkeypatch, seed, steps)
    if steps >= 5000 and not all(counts[what] for what in SEEN):  # the rare things need more of it
        counts += _check(store, redis_url, monkeypatch, seed + steps, 3 * steps)
        assert not [what for what in SEEN if not counts[what]]
    print(dict(sorted(counts.items())))


#: What is wrong, the script or part, its text, and what stands there instead.
FAULTS = {
    "a try is not counted": (
        "claim",
        "try = verdict == '' and try + 1 or try",
        "try = try",
    ),
    "an end has another outcome in the metrics": (
        "shared/settle",
        'string.match(result, \'"code":"([%w_]+)"\')',
        "'canceled'",
    ),
    "an end is not counted": ("shared/settle", "count_open(owner_of(id), -1)", ""),
    "what a worker holds expires": (
        "expire",
        "EXISTS', WEBHOOK .. id) == 1 and 1000 or math.huge",
        "EXISTS', WEBHOOK .. id) == 1 and 1000 or 0",
    ),
    "a deadline stays": (
        "shared/settle",
        "redis.call('ZREM', DEADLINES, id)",
        "",
    ),
    "a claim leaves no lease": (
        "shared/deadline",
        "redis.call('ZADD', LEASES, now + lease, id)",
        "",
    ),
    "deaths are not counted": (
        "claim",
        "local deaths = tonumber(get(TRIES .. id)) or 1",
        "local deaths = 0",
    ),
    "suspects are given to two workers": (
        "claim",
        "if kept and kept ~= worker or not (kept or can_be) then",
        "if not (kept or can_be) then",
    ),
    "a claim sent again takes more": (
        "claim",
        "if is_repeat == '1' then",
        "if false then",
    ),
    "what is late reads as running again": (
        "shared/deadline",
        "if not late then",
        "if true then",
    ),
    "what is given back loses its queued_at": (
        "shared/suspects",
        "redis.call('ZADD', QUEUE, 'XX', queued_at, id)",
        "redis.call('ZADD', QUEUE, 'XX', now, id)",
    ),
    "the company of a suspect is not halved": (
        "shared/suspects",
        "math.floor(company / 2)",
        "math.floor(company)",
    ),
    "a suspect that is given back joins the line": (
        "shared/suspects",
        "if group and group > 0 then",
        "if strikes >= suspicious then",
    ),
    "what is given back late stays with its worker": (
        "requeue",
        "if holder == token and redis.call('ZSCORE', LEASES, id) then",
        "if get(IN_PROGRESS .. id) == token then",
    ),
    "the second finisher wins": (
        "finish",
        "return redis.pcall('GET', RESULT .. id) == result and 1 or 0",
        "queued_at = now_ms()",
    ),
    "an idempotency key outlives its prediction": (
        "shared/settle",
        "redis.call('PEXPIRE', IDEMPOTENCY .. record.key, result_ttl)",
        "",
    ),
    "Cancel-After is forgotten": (
        "shared/deadline",
        "takes = tonumber(takes) or math.huge,",
        "takes = math.huge,",
    ),
    "a renewal takes another's lease": (
        "renew",
        "elseif not is_mine or not redis.call('ZSCORE', LEASES, id) then",
        "elseif not redis.call('ZSCORE', LEASES, id) then",
    ),
    "a lost lease stays a death": (
        "renew",
        "redis.call('DECR', TRIES .. id)",
        "",
    ),
    "leases do not move with the clock": (
        "shared/clock",
        "{ QUEUE, LEASES, SUSPECTS, DEADLINES, DELIVERIES, WORKERS }",
        "{ QUEUE, SUSPECTS, DEADLINES, DELIVERIES, WORKERS }",
    ),
    "what was submitted after a step back moves with the clock": (
        "submit",
        "local now = clock()",
        "local now = now_ms()",
    ),
    "an event is written twice": (
        "emit",
        "if number > last then",
        "if true then",
    ),
    "a running prediction is not marked": (
        "cancel",
        "redis.call('HSET', PREDICTION .. id, 'canceled', 1)",
        "",
    ),
    "a webhook is given to two deliverers": (
        "deliver",
        "redis.call('ZADD', DELIVERIES, lease_end, id)",
        "",
    ),
}


#: Seeds of histories that find rare faults at once: the search for others begins at 1.
SEEDS = {
    "what a worker holds expires": 18,
    "an end has another outcome in the metrics": 3,
    "deaths are not counted": 8,
    "suspects are given to two workers": 18,
    "a claim sent again takes more": 2,
    "the company of a suspect is not halved": 50,
    "a suspect that is given back joins the line": 17,
    "what is given back late stays with its worker": 4,
    "a renewal takes another's lease": 11,
    "a lost lease stays a death": 4,
    "leases do not move with the clock": 2,
    "what was submitted after a step back moves with the clock": 31,
    "an event is written twice": 11,
    "a running prediction is not marked": 5,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(
    store: "redis.Redis", redis_url: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    part, right, wrong = FAULTS[fault]
    text = scripts._text(part)
    assert text.count(right) == 1, f"{part}.lua has no such text any more; mend the fault: {right}"
    read = scripts._text

    def with_fault(name: str) -> str:
        return text.replace(right, wrong) if name == part else read(name)

    monkeypatch.setattr(scripts, "_text", with_fault)
    with pytest.raises(Violation):
        _check(store, redis_url, monkeypatch, SEEDS.get(fault, 1), _BOUND)
