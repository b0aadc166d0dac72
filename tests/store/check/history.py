"""One random history: who does what when, until all has ended, is told, and is forgotten."""

import hashlib
import random

import pytest
import redis

from predictor.prediction import DeliveryState, Job, Json, PredictionId, encode
from predictor.store import keys
from predictor.store.claims import Claim
from tests.store.check.actors import (
    LEASE,
    QUEUE_TTL,
    RESULT_TTL,
    TIMEOUT,
    Client,
    Deliverer,
    Worker,
    configured,
    failure,
    set_clocks,
)
from tests.store.check.audit import Audit, check_events
from tests.store.check.facts import Fact, Violation, demand
from tests.store.check.model import Model
from tests.store.check.server import Server

#: Predictions that have not ended, at most.
_MOST = 12

#: Seconds within which living workers end all that there is: a long run, a lease that the worker
#: which was kept for suspects left, and the halves of a company one after the other.
_DRAIN = 14

_DAY_US = 86_400_000_000


class History:
    """What happens is chosen by `seed` alone."""

    def __init__(
        self, client: "redis.Redis", url: str, monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        self.seed = seed
        self.steps = 0
        self._url = url
        self._random = random.Random(seed)
        self._server = Server(client)
        self._server.random = self._random
        self.model = Model(self._server)
        self._server.on_call = self.model.on_call
        set_clocks(monkeypatch, self._server)
        self._max_tries = self._random.choice([1, 2, 3, 3, 3, 4])
        limit = self._random.choice([0, 0, 3])
        self._client = Client(self.model, configured(url, queue_limit=limit))
        self._names = iter(range(10**9))
        self._workers = [self._new_worker() for _ in range(3)]
        self._deliverers = [Deliverer(self.model, url) for _ in range(2)]
        #: how often each thing is done, as against the others
        self._weights = {
            self._submit: 10,
            self._submit_again: 1,
            self._claim: 14,
            self._finish: 7,
            self._emit: 3,
            self._requeue: 1,
            self._stop: 0.6,
            self._kill: self._random.choice([0.3, 1.5, 4]),
            self._freeze: self._random.choice([0, 0.6, 2]),
            self._beat: 14,
            self._read: 8,
            self._cancel: 2,
            self._erase: 2,
            self._client.expire: self._random.choice([0, 1]),
            self._redeliver: 1,
            self._deliver: 6,
            self._record: 5,
            self._go_on: 6,
            self._wait: 14,
            self._set_clock: self._random.choice([0, 0, 0.5]),
        }

    def run(self, steps: int) -> None:
        """Raise Violation, with what happened before it, if the scripts break their word."""
        try:
            self._server.lost = self._random.choice([0, 0.03, 0.1])
            for _ in range(steps):
                self._step()
            check_events(self.model)
            self._end()
        except Violation as violation:
            violation.add_note(self._story(str(violation)))
            raise
        finally:
            self._drop_all()
            self._server.flush()

    def _step(self) -> None:
        self.steps += 1
        self._server.advance(self._random.randint(1, 900))
        (action,) = self._random.choices(list(self._weights), list(self._weights.values()))
        before = self.model.counts.total()
        action()
        if self.model.counts.total() > before:
            Audit(self.model).run()
            self._check_workers()
        self.model.prune()

    def _check_workers(self) -> None:
        """Who lives, and waits for no answer, knows what it holds: else nobody would run it."""
        known = {claim.token for worker in self._workers for claim in worker.claims.held.values()}
        names = {worker.name for worker in self._workers if not len(worker.tasks)}
        for fact in self.model.facts.values():
            if fact.run and fact.run.worker in names:
                demand(fact.run.token in known, f"{fact.run.worker} knows not of its {fact.id}")

    def _story(self, what: str) -> str:
        ids = {id_ for id_ in self.model.facts if id_ in what}
        lines = [line for line in self.model.log if not ids or any(id_ in line for id_ in ids)]
        head = f"seed {self.seed}, step {self.steps}, max_tries {self._max_tries}"
        last = list(self.model.log)[-12:]
        return "\n  ".join([head, *lines[-40:], "--- all that happened last:", *last])

    # What clients do.

    def _submit(self) -> None:
        source = self._random
        if sum(fact.is_active for fact in self.model.facts.values()) >= _MOST:
            return
        number = f"{self.seed}-{next(self._names)}"
        owner = ("", "aaaaaaaa_", "bbbbbbbb_")[len(self.model.facts) % 3]
        id_ = PredictionId(owner + hashlib.md5(number.encode()).hexdigest()[:8])
        takes = source.choice([None, None, None, 0.05, 0.5, 3.0, 20.0])
        webhook = source.choice([None, None, "https://example.org/"])
        key, text = source.choice(["", "", "a", "b", "c"]), source.choice(["1", "1", "1", "2"])
        fingerprint = f"{key}{text}{takes}" if key else ""
        self._client.submit(id_, Job(encode(text), takes, webhook, key, fingerprint))

    def _submit_again(self) -> None:
        if fact := self._any(is_active=True):
            self._client.submit_again(PredictionId(fact.id))

    def _any(self, *, is_active: bool = False) -> Fact | None:
        facts = list(self.model.facts.values())
        if is_active or self._random.random() < 0.6:
            facts = [fact for fact in facts if fact.is_active]
        return self._random.choice(facts) if facts else None

    def _do(self, what: str) -> None:
        if fact := self._any():
            self._client.do(what, PredictionId(fact.id))

    def _read(self) -> None:
        self._do("read")

    def _cancel(self) -> None:
        self._do("cancel")

    def _erase(self) -> None:
        self._do("erase")

    def _redeliver(self) -> None:
        self._do("redeliver")

    # What workers do.

    def _new_worker(self) -> Worker:
        return Worker(self.model, f"host:{next(self._names)}:ab", self._max_tries, self._url)

    def _worker(self) -> Worker | None:
        awake = [worker for worker in self._workers if not self._is_frozen(worker)]
        return self._random.choice(awake) if awake else None

    def _is_frozen(self, worker: Worker) -> bool:
        return worker.frozen_until > self._server.passed_us / 1000

    def _claim(self) -> None:
        if worker := self._worker():
            worker.claim()

    def _one(self) -> tuple[Worker, Claim] | None:
        worker = self._worker()
        if not worker or not worker.idle:
            return None
        return worker, self._random.choice(worker.idle)

    def _finish(self) -> None:
        if found := self._one():
            worker, claim = found
            said = Json(f'"{claim.token}"'.encode())
            worker.finish(claim, failure(self._random) if self._random.random() < 0.2 else said)

    def _emit(self) -> None:
        if (found := self._one()) and not found[1].verdict:
            found[0].emit(found[1], self._random.randint(1, 3))

    def _requeue(self) -> None:
        if found := self._one():
            found[0].requeue([found[1]])

    def _beat(self) -> None:
        if worker := self._worker():
            worker.beat()

    def _freeze(self) -> None:
        if worker := self._worker():
            ms = self._random.choice([0.4, 1.2, 2.5, 6]) * LEASE * 1000
            worker.frozen_until = self._server.passed_us / 1000 + ms
            self.model.note(f"{worker.name} is frozen for {ms} ms")

    def _stop(self) -> None:
        """In order: what it holds goes back."""
        if worker := self._worker():
            self.model.note(f"{worker.name} is stopped")
            worker.claims.stop_claiming(1)
            worker.requeue(worker.idle)
            self._replace(worker)

    def _kill(self) -> None:
        worker = self._random.choice(self._workers)
        self.model.note(f"{worker.name} is killed")
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        worker.tasks.drop()
        self._workers[self._workers.index(worker)] = self._new_worker()

    # What deliverers do.

    def _deliver(self) -> None:
        self._random.choice(self._deliverers).claim(self._random.choice([1, 5]))

    def _record(self) -> None:
        index = self._random.randrange(len(self._deliverers))
        deliverer = self._deliverers[index]
        if self._random.random() < 0.1:
            self.model.note(f"deliverer {index} is killed")
            deliverer.tasks.drop()
            self._deliverers[index] = Deliverer(self.model, self._url)
        elif deliverer.held:
            id_ = self._random.choice(list(deliverer.held))
            what = self._random.choice([*DeliveryState][1:])
            if self._random.random() < 0.1:
                deliverer.put_off(id_, self._random.choice([0, 1.5]))
            else:
                deliverer.record(id_, what, 2.0 if what is DeliveryState.PENDING else None)

    # What happens to all.

    def _go_on(self) -> None:
        awake = [worker for worker in self._workers if not self._is_frozen(worker)]
        all_tasks = [worker.tasks for worker in awake] + [each.tasks for each in self._deliverers]
        if waiting := [tasks for tasks in all_tasks if len(tasks)]:
            tasks = self._random.choice(waiting)
            tasks.go_on(self._random.randrange(len(tasks)))

    def _wait(self) -> None:
        lease = LEASE * 1000
        long = [RESULT_TTL * 1000, QUEUE_TTL * 1000]
        ms = self._random.choice(
            [1, 3, 20, 100, lease / 3, lease / 3, lease / 2, lease, 2.2 * lease]
        )
        if self._random.random() < 0.01:
            ms = self._random.choice(long)
        self.model.note(f"{ms} ms pass")
        self._server.advance(int(ms * 1000))

    def _set_clock(self) -> None:
        ms = self._random.choice([-300, -1000, -5000, -3_600_000, 700, 5000])
        self.model.set_clock(ms * 1000)

    def _drop_all(self) -> None:
        for worker in self._workers:
            worker.tasks.drop()
        for deliverer in self._deliverers:
            deliverer.tasks.drop()

    # How it ends.

    def _end(self) -> None:
        """With one living worker all end soon; then all is told, and forgotten."""
        self.model.note("the end")
        self._server.lost = 0
        self._drop_all()
        self._workers = [self._new_worker() for _ in range(self._random.randint(1, 2))]
        self._deliverers = [Deliverer(self.model, self._url)]
        self._drain()
        self._deliver_all(self._deliverers[0])
        check_events(self.model)
        self._server.advance(4 * _DAY_US)
        state = self._server.state()
        for key in (keys.METRICS, keys.TIMES):
            state.pop(key, None)
        demand(not state, f"left for ever: {state}")

    def _drain(self) -> None:
        """Workers end all that they get, but one that has a long run, until nothing is left."""
        is_long = self._random.random() < 0.5
        for third in range(round(_DRAIN * 3 / LEASE)):
            for worker in self._workers:
                worker.beat()
                worker.claim()
                is_busy = is_long and worker is self._workers[0] and third < TIMEOUT * 3 / LEASE
                for claim in worker.idle[is_busy:]:
                    worker.finish(claim, Json(b"1"))
            Audit(self.model).run()
            if not any(fact.is_active for fact in self.model.facts.values()):
                return
            self._server.advance(int(LEASE * 1e6 / 3))
        left = [fact.id for fact in self.model.facts.values() if fact.is_active]
        raise Violation(f"not ended though a worker lives: {left}")

    def _deliver_all(self, deliverer: Deliverer) -> None:
        for _ in range(20):
            deliverer.claim(50)
            for id_ in list(deliverer.held):
                deliverer.record(id_, DeliveryState.DELIVERED, None)
            Audit(self.model).run()
            self._server.advance(int(LEASE * 1e6))
        due = [fact.id for fact in self.model.facts.values() if fact.due]
        demand(not due, f"not told: {due}")
