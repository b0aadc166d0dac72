"""The worker's side of the store: claim, finish, requeue. A claim is a lease on a prediction."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.errors import Expired, ModelFailed, PredictionError, StoreUnavailable, TimedOut
from predictor.prediction import Json, Output, Prediction, PredictionId, State
from predictor.store import keys
from predictor.store.retry import STORE_ERRORS, StoreRetry, drop_wrong_types
from predictor.store.scripts import script
from predictor.store.server import check_server, version
from predictor.store.wire import encode_ended

logger = logging.getLogger(__name__)

#: Bytes of jobs in the answer to one claim, beyond the first job: many large ones come in turns.
_CLAIM_BYTES = 8 * 2**20

#: A value of more bytes may be larger than the store takes: it is written so often, no more.
_LARGE, _MOST_FAILURES = 2**19, 3

#: How often a prediction may be requeued, for each try that it has: then it is what stops its
#: workers, and is given up.
_MOST_REQUEUES = 10

#: Seconds after which a wait ends though nothing happened: due predictions may have no token (an
#: expired lease, another producer), and arq writes its sign of life between two looks.
_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a worker holds predictions. Times in seconds."""

    #: names this process and no other
    worker: str
    lease: float
    result_ttl: float
    #: runs before a prediction that kills its worker is given up
    max_tries: int
    #: how long one prediction may run
    timeout: float = 300

    @property
    def lease_ms(self) -> int:
        """How long a lease is."""
        return round(self.lease * 1000)

    @property
    def longest_run_ms(self) -> int:
        """How long a worker that does its duty may need for a run."""
        return round((self.timeout + 2 * self.lease) * 1000)


@dataclass(frozen=True, slots=True)
class Claim:
    """A prediction that this worker holds."""

    id: PredictionId
    #: its place in the queue, ms since 1970
    queued_at: float
    #: 1 for its first run
    tries: int
    #: as arq stores it; None where it has expired
    job: bytes | None
    #: what its in-progress key says while it is ours: worker:try:start
    token: str
    #: why it is not to be run: 'canceled', 'expired' or 'given_up'; empty where it is
    verdict: str = ""

    @property
    def started(self) -> int:
        """When this run began, ms since 1970 by the store's clock."""
        return int(self.token.rpartition(":")[2])

    def ended(self, outcome: Output | PredictionError, now_ms: int) -> Prediction:
        """The prediction as it is to be kept; one clock for all times: the store's."""
        created = max(0.0, min(self.queued_at, self.started)) / 1000
        finished = max(self.started, now_ms) / 1000
        times = (created, self.started / 1000, finished, self.tries)
        if isinstance(outcome, Output):
            return Prediction(self.id, State.SUCCEEDED, *times, output=outcome)
        return Prediction(self.id, State.of(outcome), *times, error=outcome)

    @property
    def waited(self) -> float:
        """Seconds from its submit to this run, by the store's clock."""
        return (self.started - self.queued_at) / 1000


class Claims:
    """The predictions that one worker holds, at most `slots()` at a time."""

    def __init__(
        self, redis: Redis, retry: StoreRetry, terms: Terms, slots: Callable[[], int]
    ) -> None:
        self._redis = redis
        self._retry = retry
        self.terms = terms
        self._slots = slots
        self._held: dict[PredictionId, Claim] = {}
        #: whether it is kept for suspects, and whether what it holds are suspects
        self._is_quarantined = self._has_suspects = False
        #: how many it held when it was told to stop
        self._company = 0
        self._leaving = False
        self._freed = asyncio.Event()
        self._waiting: asyncio.Task[Any] | None = None
        #: what the store's clock is ahead of `time.monotonic`; 0 before its first answer
        self._clock_ms = 0.0
        self._started = time.monotonic()
        self._register(allow_oom=False)

    async def open(self) -> bool:
        """Look at the server, then be ready to claim. Raises UnsuitableStore.

        Answers whether scripts can run when the store's memory is full.
        """
        info = await self._until_answered(self._redis.info)
        check_server(info)
        allow_oom = version(info) >= (7, 0)
        self._register(allow_oom=allow_oom)
        return allow_oom

    @property
    def held(self) -> dict[PredictionId, Claim]:
        """What this worker holds now."""
        return self._held

    @property
    def now_ms(self) -> int:
        """The store's clock, as far as this worker knows it; ms since 1970."""
        return round(time.monotonic() * 1000 + self._clock_ms)

    async def claim(self) -> list[Claim]:
        """New claims, as many as are due and there are slots for; waits a moment for both.

        An empty list means: look again. After `leave` there are no new ones.
        """
        with contextlib.suppress(StoreUnavailable):
            if not await self._slot_is_free():
                return []
            if claims := await self._claim_due():
                return claims
            await self._wait_for_work()
            return await self._claim_due()
        return []

    def leave(self) -> None:
        """Claim nothing from now on; a wait ends at once."""
        self._company = self._company or len(self._held)
        self._leaving = True
        self._freed.set()
        if self._waiting:
            self._waiting.cancel()

    async def finish(self, claim: Claim, outcome: Output | PredictionError) -> None:
        """End a prediction, unless it has ended already, by whomever."""
        with contextlib.suppress(StoreUnavailable):  # leaving without it: it will be run again
            try:
                written = await self._write_result(claim, outcome)
            except ValueRefused as refused:
                written = await self._write_result(claim, ModelFailed(str(refused)))
            if written < 0:
                written = await self._write_result(claim, TimedOut())
            if not written:
                logger.warning("prediction %s had ended already; this result is dropped", claim.id)
        self._let_go(claim.id)

    async def _write_result(self, claim: Claim, outcome: Output | PredictionError) -> int:
        result = encode_ended(claim.ended(outcome, self.now_ms))
        args: list[Any] = [claim.id, result, *keys.lives(self.terms.result_ttl), self.terms.worker]
        args += [claim.started, int(isinstance(outcome, TimedOut | Expired))]
        written = await self._write(lambda: self._finish(args=args), len(result))
        return int(written)

    async def emit(self, id_: PredictionId, first: int, said: list[tuple[str, Json]]) -> None:
        """Write what the run of a prediction that this worker holds has said.

        `first`: the number of the first of these events in this run.
        """
        if claim := self._held.get(id_):
            args: list[Any] = [id_, claim.token, first, *(part for each in said for part in each)]
            size = sum(len(data) for _, data in said)
            try:
                await self._write(lambda: self._emit(args=args), size)
            except ValueRefused as refused:
                logger.warning("prediction %s: a piece of output is dropped: %s", id_, refused)
            except StoreUnavailable:
                pass  # leaving without it

    async def requeue(self, *ids: PredictionId) -> None:
        """Return predictions to their places in the queue; the tries do not count."""
        claims = [self._held[id_] for id_ in ids if id_ in self._held]
        # Before the store hears of it: a claim that is under way may get one of them anew.
        for id_ in ids:
            self._let_go(id_)
        if claims:
            with contextlib.suppress(StoreUnavailable):  # their leases will run out
                await self._until_answered(
                    lambda: self._requeue(args=self.requeue_arguments(claims))
                )

    def requeue_arguments(self, claims: list[Claim]) -> list[Any]:
        """The arguments of requeue.lua."""
        most = self.terms.max_tries
        args: list[Any] = [self.terms.worker, _MOST_REQUEUES * most, max(3, most), self._company]
        return args + [part for claim in claims for part in (claim.id, claim.token)]

    def _register(self, *, allow_oom: bool) -> None:
        def register(name: str) -> AsyncScript:
            text = script(name, allow_oom=allow_oom)
            registered: AsyncScript = self._redis.register_script(text)
            return registered

        self._claim = register("claim")
        self._finish = register("finish")
        self._emit = register("emit")
        self._requeue = register("requeue")

    def _free(self) -> int:
        if self._leaving or self._has_suspects:
            return 0
        return self._slots() - len(self._held)

    def _let_go(self, id_: PredictionId) -> None:
        self._held.pop(id_, None)
        self._has_suspects = self._has_suspects and bool(self._held)
        self._freed.set()

    async def _slot_is_free(self) -> bool:
        if self._free() <= 0 and not self._leaving:
            await self._wait_for_slot()
        return self._free() > 0

    async def _wait_for_slot(self) -> None:
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT):
                await self._freed.wait()

    async def _wait_for_work(self) -> None:
        """Until somebody submits, this worker is told to leave, or a second has passed."""
        if self._is_quarantined:  # what is submitted is for others: it waits to be empty
            await self._wait_for_slot()
            return
        began = time.monotonic()
        self._waiting = asyncio.ensure_future(
            self._redis.execute_command("BLPOP", keys.WAKE, _WAIT)
        )
        try:
            # A server forgets the wait when its clock is set back.
            ended, _ = await asyncio.wait({self._waiting}, timeout=2 * _WAIT)
            if ended and not self._waiting.cancelled() and (error := self._waiting.exception()):
                await self._meet(error)
        finally:
            self._waiting.cancel()
            self._waiting = None
        self._retry.observed(time.monotonic() - began, _WAIT + self.terms.lease / 4)

    async def _claim_due(self) -> list[Claim]:
        sent_again = False
        while (free := self._free()) > 0:
            try:
                return self._take(await self._call_claim(free, sent_again=sent_again))
            except STORE_ERRORS as error:
                await self._meet(error)
                sent_again = True
        return []

    async def _call_claim(self, free: int, *, sent_again: bool) -> list[Any]:
        terms, now = self.terms, time.monotonic()
        # After trouble, workers that outlived it get half a lease to renew what is theirs.
        quiet = now - max(self._started, self._retry.last_failure)
        knows_clock = self._clock_ms > 0
        expected_ms = self.now_ms if knows_clock else 0
        args: list[Any] = [terms.worker, terms.lease_ms, free, _CLAIM_BYTES, terms.max_tries]
        args += [len(self._held), int(self._is_quarantined), expected_ms]
        args += [int(quiet > terms.lease / 2), int(sent_again)]
        reply: list[Any] = await self._claim(args=args)
        took = time.monotonic() - now
        self._retry.recovered()
        # A clock that was set makes leases run out as a store that was frozen does.
        jumped = (reply[0] - expected_ms) / 1000 if knows_clock else 0
        self._retry.observed(max(took, jumped), terms.lease / 4)
        self._clock_ms = reply[0] - time.monotonic() * 1000
        return reply

    def _take(self, reply: list[Any]) -> list[Claim]:
        self._is_quarantined = bool(reply[1])
        claims = []
        for id_, queued_at, tries, job, token, verdict in reply[2:]:
            if verdict == b"dropped":
                logger.warning("dropped %r from the queue: it cannot be an id", id_[:100])
                continue
            name = PredictionId(id_.decode())
            claim = Claim(name, float(queued_at), tries, job, token.decode(), verdict.decode())
            # What it holds already is its own: the lease ran out, and nobody else came.
            if name not in self._held:
                claims.append(claim)
            self._held[name] = claim
        self._has_suspects |= self._is_quarantined and bool(claims)
        return claims

    async def _until_answered(self, call: Callable[[], Any]) -> Any:
        """The answer of the store, whenever it comes. Raises StoreUnavailable when leaving."""
        return await self._retry.until_answered(self._redis, call)

    async def _write(self, call: Callable[[], Any], size: int) -> Any:
        """As `_until_answered`, for a call that writes so many bytes.

        Raises ValueRefused if the store, which answers otherwise, breaks off each time.
        """
        failures = 0
        while True:
            try:
                return await call()
            except STORE_ERRORS as error:
                await self._meet(error)
                failures += size > _LARGE and _breaks_off(error)
                if failures == _MOST_FAILURES:
                    raise ValueRefused(size) from error
                if failures:
                    await self._until_answered(self._redis.ping)

    async def _meet(self, error: BaseException) -> None:
        if not isinstance(error, STORE_ERRORS):
            raise error
        await drop_wrong_types(self._redis, error)
        await self._retry.wait(error)


def _breaks_off(error: Exception) -> bool:
    return isinstance(error, RedisConnectionError) or "Protocol error" in str(error)


class ValueRefused(Exception):
    """The store does not take a value."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The store does not take a value of {size} bytes; return less, or raise its limit "
            "(proto-max-bulk-len)."
        )
