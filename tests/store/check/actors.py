"""Who calls the scripts: the project's own clients, workers and deliverers, one call at a time."""

import random
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from predictor.config import Config
from predictor.errors import (
    Canceled,
    Expired,
    GivenUp,
    ModelFailed,
    PredictionError,
    PredictorError,
    TimedOut,
)
from predictor.prediction import Attempt, Delivery, DeliveryState, Job, Json, Output, PredictionId
from predictor.store import claims, deliveries, heartbeat, predictions
from predictor.store.claims import Claim, Claims
from predictor.store.deliveries import Deliveries
from predictor.store.heartbeat import Heartbeat
from predictor.store.predictions import Predictions
from predictor.store.retry import STORE_ERRORS, StoreRetry
from tests.store.check.model import Model
from tests.store.check.server import Server

#: Seconds.
LEASE, TIMEOUT, QUEUE_TTL, RESULT_TTL = 1.0, 4.0, 40.0, 15.0
SLOTS = 4


def configured(url: str, **settings: Any) -> Config:
    """The settings of all actors."""
    times: dict[str, Any] = {"lease": LEASE, "timeout": TIMEOUT}
    times |= {"queue_ttl": QUEUE_TTL, "result_ttl": RESULT_TTL, "queue_limit": 0}
    return Config(redis_url=url, **times | settings)


class _Pause:
    """What somebody waits for who met trouble with the store: the history lets it go on."""

    def __await__(self) -> Generator[None]:
        yield


class _Waiting(StoreRetry):
    def __init__(self, redis: "Redis", server: Server) -> None:
        super().__init__(redis)
        self._server = server

    async def wait(self, error: BaseException) -> None:
        if not isinstance(error, STORE_ERRORS):
            raise error
        self.last_failure = self._server.monotonic()
        await _Pause()


Steps = Coroutine[Any, Any, Any]


def set_clocks(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Have the project's modules read the history's time."""
    clock = SimpleNamespace(monotonic=server.monotonic, time=server.time, sleep=time.sleep)
    for module in (claims, deliveries, heartbeat, predictions):
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("predictor.store.retry.time", clock)


class Tasks:
    """Calls under way: each goes on when the history says so."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Steps, Callable[[Any], None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self, steps: Steps, then: Callable[[Any], None] = lambda _: None) -> None:
        """Begin a call; `then` gets its answer."""
        try:
            steps.send(None)
        except StopIteration as end:
            then(end.value)
        else:
            self._waiting.append((steps, then))

    def go_on(self, index: int) -> None:
        """Have one that waits try again."""
        self.start(*self._waiting.pop(index))

    def drop(self) -> None:
        """Whoever made the calls is dead."""
        for steps, _ in self._waiting:
            steps.close()
        self._waiting = []


class Worker:
    """A worker process with its heartbeat."""

    def __init__(self, model: Model, name: str, max_tries: int, url: str) -> None:
        self._model = model
        self.name = name
        retry = _Waiting(Redis.from_url(url), model.server)
        self.claims = Claims(configured(url, max_tries=max_tries), retry, name, lambda: SLOTS)
        self._heartbeat = Heartbeat(url, name, "{}", LEASE, TIMEOUT)
        model.server.take_over(retry)
        model.server.take_over(self._heartbeat)
        self.tasks = Tasks()
        #: ms by the time that passes until which it is frozen
        self.frozen_until = 0.0
        self._busy: set[PredictionId] = set()
        self._claims_now = False
        #: the last number of an event of each run
        self._said: dict[str, int] = {}

    @property
    def idle(self) -> list[Claim]:
        """What it holds, and could end."""
        return [claim for id_, claim in self.claims.held.items() if id_ not in self._busy]

    @property
    def waits(self) -> bool:
        """Whether it waits for the answer to a claim."""
        return self._claims_now

    def claim(self) -> None:
        """Ask for what is due."""
        if not self._claims_now:
            self._claims_now = True
            self.tasks.start(self.claims._claim_due(), self._claimed)

    def _claimed(self, _: Any) -> None:
        self._claims_now = False

    def finish(self, claim: Claim, outcome: Json | PredictionError) -> None:
        """End one with what its model made of it, or as its verdict says."""
        match claim.verdict:
            case "canceled":
                outcome = Canceled()
            case "given_up":
                outcome = GivenUp()
            case "expired":
                outcome = TimedOut() if claim.tries else Expired()
        made = outcome if isinstance(outcome, PredictionError) else Output(Json(b"0"), outcome)
        self._do(claim.id, self.claims.finish(claim, made))

    def emit(self, claim: Claim, count: int) -> None:
        """Say something of a run."""
        first = self._said.get(claim.token, 0) + 1
        self._said[claim.token] = first + count - 1
        said = [
            (("output", "progress")[number % 3 == 0], Json(f'"{claim.token} {number}"'.encode()))
            for number in range(first, first + count)
        ]
        self._do(claim.id, self.claims.emit(claim.id, first, said))

    def requeue(self, given: Iterable[Claim]) -> None:
        """Return some to the queue."""
        given = list(given)
        ids = [claim.id for claim in given]
        self._model.let_go.update(claim.token for claim in given)
        for id_ in ids:
            self._busy.add(id_)
        self.tasks.start(self.claims.requeue(*ids), lambda _: self._busy.difference_update(ids))

    def beat(self) -> None:
        """Renew what it holds; what need not go on is ended."""
        for id_ in self._over():
            if any(claim.id == id_ for claim in self.idle):
                self.finish(self.claims.held[id_], Canceled())

    def _over(self) -> list[PredictionId]:
        told: list[bytes] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heartbeat, "_write", told.append)
            try:
                self._heartbeat.beat_once()
            except RedisError:
                return []
        return [PredictionId(id_.decode()) for id_ in told]

    def _do(self, id_: PredictionId, steps: Steps) -> None:
        self._busy.add(id_)
        self.tasks.start(steps, lambda _: self._busy.discard(id_))


class Deliverer:
    """A process that tells webhooks."""

    def __init__(self, model: Model, url: str) -> None:
        self._model = model
        self._deliveries = Deliveries(configured(url))
        self._deliveries.retry = _Waiting(self._deliveries._redis, model.server)
        model.server.take_over(self._deliveries.retry)
        self._deliveries._redis = self  # type: ignore[assignment]
        self.tasks = Tasks()
        self.held: dict[PredictionId, Delivery] = {}
        self._claims_now = False

    def claim(self, most: int) -> None:
        """Ask for what is due."""
        if not self._claims_now:
            self._claims_now = True
            self.tasks.start(self._deliveries.claim(most, list(self.held)), self._claimed)

    def _claimed(self, found: dict[PredictionId, Delivery]) -> None:
        self._claims_now = False
        self.held |= found

    def record(self, id_: PredictionId, state: DeliveryState, pause: float | None) -> None:
        """Write down what came of an attempt."""
        began = self._model.server.time()
        attempt = Attempt(began, 0.1, 503 if pause else 200)
        self.tasks.start(self._deliveries.record(self.held.pop(id_), attempt, state, pause))

    def put_off(self, id_: PredictionId, seconds: float) -> None:
        """Let another have it."""
        del self.held[id_]
        self.tasks.start(self._deliveries.put_off(id_, seconds))

    # What it uses of a client of the store.

    async def time(self) -> tuple[int, int]:
        """The store's clock."""
        return divmod(self._model.server.clock_us, 1_000_000)

    async def zadd(self, key: str, scores: dict[str, float], *, xx: bool) -> None:
        """Put off."""
        self._model.server.zadd(key, scores, xx=xx)
        for id_, score in scores.items():
            self._model.put_off(id_, score)


class Client:
    """Who submits, reads, cancels and erases, through an api."""

    def __init__(self, model: Model, config: Config) -> None:
        self._predictions = Predictions(config)
        model.server.take_over(self._predictions._retry)
        self._submitted: dict[PredictionId, Job] = {}

    def submit(self, id_: PredictionId, job: Job) -> None:
        """Submit one."""
        self._submitted[id_] = job
        self._ask(self._predictions.submit(id_, job))

    def submit_again(self, id_: PredictionId) -> None:
        """As one does whose reply was lost."""
        self._ask(self._predictions.submit(id_, self._submitted[id_]))

    def do(self, what: str, id_: PredictionId) -> None:
        """Call a method that takes an id."""
        self._ask(getattr(self._predictions, what)(id_))

    def expire(self) -> None:
        """What an api does every second."""
        self._ask(self._predictions.expire())

    def _ask(self, steps: Steps) -> None:
        try:
            steps.send(None)
        except (StopIteration, PredictorError):
            pass
        else:
            raise AssertionError("an api does not wait for the store")


def failure(source: random.Random) -> PredictionError:
    """What a model raises, or a worker for it."""
    return source.choice([ModelFailed("no"), TimedOut()])
