"""Compares all that the store holds with the model: what must be there, and nothing else."""

from collections import Counter
from typing import Any

from predictor.store import keys
from tests.store.check.facts import Fact, demand
from tests.store.check.model import Model, pairs

#: What may be there without an end while a prediction has not ended.
_SHARED = {
    keys.QUEUE,
    keys.LEASES,
    keys.CLAIMED,
    keys.SUSPECTS,
    keys.DEADLINES,
    keys.TIMES,
    keys.METRICS,
    keys.OPEN,
    keys.WAKE,
    keys.DELIVERY_WAKE,
}
_OWN = (keys.JOB, keys.EVENTS, keys.PREDICTION, keys.WEBHOOK, keys.IDEMPOTENCY)

_LEASE = 1000  # ms


class Audit:
    """The store at one moment."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._state = model.server.state()

    def run(self) -> None:
        """Raise Violation where the store and the model differ."""
        facts = [fact for fact in self._model.facts.values() if fact.is_active]
        self._check_sets(facts)
        for fact in facts:
            self._check_active(fact)
        for fact in self._model.facts.values():
            if not fact.is_active:
                self._check_ended(fact)
            self._check_webhook(fact)
        self._check_held()
        self._check_pace()
        self._check_counts()
        self._check_lives({fact.id for fact in facts} | {fact.key for fact in facts})

    def _value(self, key: str) -> Any:
        return self._state.get(key, (None, 0))[0]

    def _left(self, key: str) -> int | None:
        """Ms that a key has; -1: no end; None: it is not there."""
        found = self._state.get(key)
        return found and found[1]

    def _scores(self, key: str) -> dict[str, float]:
        return {name: float(score) for name, score in pairs(self._value(key) or [])}

    def _check_sets(self, facts: list[Fact]) -> None:
        _same("the queue", self._scores(keys.QUEUE), {fact.id: fact.place for fact in facts})
        leases = {fact.id: fact.run.lease.score for fact in facts if fact.run}
        _same("the leases", self._scores(keys.LEASES), leases)
        tokens = {fact.id: fact.run.token if fact.run else fact.last_token for fact in facts}
        claimed = {fact.id: (fact.turn.score, tokens[fact.id]) for fact in facts if tokens[fact.id]}
        found = {
            id_: (float(kept.split(" ")[0]), kept.split(" ")[1])
            for id_, kept in pairs(self._value(keys.CLAIMED) or [])
        }
        _same("the claimed", found, claimed)
        suspects = {fact.id for fact in facts if fact.is_suspect}
        deadlines = {fact.id: fact.deadline.score for fact in facts if fact.deadline}
        _same("the deadlines", self._scores(keys.DEADLINES), deadlines)
        _same("the suspects", set(self._scores(keys.SUSPECTS)), suspects)
        owned = Counter(fact.id[:8] for fact in facts if "_" in fact.id)
        counted = {name: int(count) for name, count in pairs(self._value(keys.OPEN) or [])}
        _same("the open of each name", counted, dict(owned))
        due = {fact.id: fact.due.score for fact in self._model.facts.values() if fact.due}
        _same("the deliveries", self._scores(keys.DELIVERIES), due)

    def _check_active(self, fact: Fact) -> None:
        id_, now_ms = fact.id, self._model.now_ms
        demand(self._value(keys.JOB + id_) == fact.job, f"the job of {id_} is lost")
        demand(self._left(keys.RESULT + id_) is None, f"{id_} is active, and has a result")
        run = fact.run if fact.run and fact.run.is_alive(now_ms) else None
        _same(f"the worker of {id_}", self._value(keys.IN_PROGRESS + id_), run and run.token)
        if run:
            _same(f"the run of {id_}", self._left(keys.IN_PROGRESS + id_), run.alive_until - now_ms)
        tries = fact.tries_at(now_ms)
        found = self._value(keys.TRIES + id_)
        _same(f"the tries of {id_}", found, None if tries is None else str(tries))
        record = dict(pairs(self._value(keys.PREDICTION + id_) or []))
        group = None if fact.group is None else str(fact.group)
        _same(f"the group of {id_}", record.get("group"), group)
        mark = "1" if fact.is_marked else None
        _same(f"the cancel of {id_}", record.get("canceled"), mark)
        self._check_events(fact)
        if fact.key:
            of = dict(pairs(self._value(keys.IDEMPOTENCY + fact.key) or []))
            _same(f"whose the key {fact.key} is", of.get("id"), id_)

    def _check_events(self, fact: Fact) -> None:
        kept = len(fact.events) if fact.keeps_events else None
        _same(f"the events of {fact.id}", self._value(keys.EVENTS + fact.id), kept)

    def _check_ended(self, fact: Fact) -> None:
        id_ = fact.id
        left = fact.known_until - self._model.now_ms if fact.is_known(self._model.now_ms) else None
        if left is not None:
            _same(f"the result of {id_}", self._value(keys.RESULT + id_), fact.result)
            self._check_events(fact)
        has = {
            keys.RESULT: True,
            keys.EVENTS: fact.keeps_events,
            keys.PREDICTION: fact.has_progress or bool(fact.key),
        }
        lives = {kind: self._left(kind + id_) for kind in has}
        expected = {kind: left if has[kind] else None for kind in has}
        _same(f"what is left of {id_}", lives, expected)
        for kind in (keys.JOB, keys.IN_PROGRESS, keys.TRIES):
            demand(self._left(kind + id_) is None, f"{kind}{id_} is left of an ended prediction")
        if fact.key and self._model.keys[fact.key] == id_:
            _same(f"the life of key {fact.key}", self._left(keys.IDEMPOTENCY + fact.key), left)

    def _check_webhook(self, fact: Fact) -> None:
        is_there = fact.has_webhook_at(self._model.now_ms)
        until = fact.webhook_until
        left = (until if until < 0 else until - self._model.now_ms) if is_there else None
        _same(f"the webhook of {fact.id}", self._left(keys.WEBHOOK + fact.id), left)
        if is_there and not fact.is_active:
            found = dict(pairs(self._value(keys.WEBHOOK + fact.id)))
            told = (found.get("state"), found.get("result"), found.get("since"))
            _same(f"what is told of {fact.id}", told, (fact.webhook_state, fact.result, fact.since))
        if fact.webhook_state == "pending" and is_there:
            demand(fact.due, f"nobody will be told that {fact.id} has ended")

    def _check_held(self) -> None:
        for worker, held in self._model.held.items():
            found = dict(pairs(self._value(keys.HELD + worker) or []))
            _same(f"what {worker} holds", found, held)

    def _check_pace(self) -> None:
        pace = (self._value(keys.TIMES) or "0").split()
        ended = self._model.counts["finish"]
        demand(float(pace[0]) <= ended, f"{ended} ended, but the pace is {pace}")

    def _check_counts(self) -> None:
        """Each prediction that has ended is counted once."""
        counts = {name: int(count) for name, count in pairs(self._value(keys.METRICS) or [])}
        all_ = [*self._model.facts.values(), *self._model._past.values()]
        ended = Counter(f"predictions async {fact.outcome}" for fact in all_ if not fact.is_active)
        counted = Counter[str]()
        for name, count in counts.items():
            if name.startswith("predictions "):
                counted[" ".join(name.split()[:3])] += count
        _same("the count of the ended", counted, ended)
        recovered = self._model.counts["recovered"] + self._model.counts["recovered by itself"]
        _same("the count of the recovered", counts.get("recovered", 0), recovered)

    def _check_lives(self, active: set[str]) -> None:
        for key, (_, left) in self._state.items():
            prefix, _, name = key.rpartition(":")
            is_own = name in active and f"{prefix}:" in _OWN
            demand(left >= 0 or key in _SHARED or is_own, f"{key} has no end")
        back = self._model.outstanding + self._model.unknown
        kept = self._left(keys.QUARANTINE) or 0
        most = _LEASE + back + 1
        demand(kept <= most, f"a worker is kept for suspects for {kept} ms")


def check_events(model: Model) -> None:
    """Raise Violation unless the events of all that is known are those that happened."""
    for fact in model.facts.values():
        if fact.is_known(model.now_ms):
            found = model.server.events(fact.id)
            _same(f"the events of {fact.id}", found, fact.events)
            ends = [kind for kind, _ in found if kind == "completed"]
            demand(len(ends) <= 1, f"{fact.id} ended {len(ends)} times")


def _same(what: str, found: object, expected: object) -> None:
    demand(found == expected, f"{what}: {found!r} in the store, not {expected!r}")
