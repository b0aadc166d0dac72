"""The worker's side of the store: claim, finish, give back. A claim is a lease on a prediction."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from predictor.errors import StoreUnavailable
from predictor.prediction import Json, PredictionId
from predictor.store import keys
from predictor.store.healing import heal
from predictor.store.patience import TROUBLE, Patience
from predictor.store.scripts import script
from predictor.store.server import check_server, version

logger = logging.getLogger(__name__)

#: Bytes of jobs in the answer to one claim, beyond the first job: many large ones come in turns.
_CLAIM_BYTES = 8 * 2**20

#: Seconds after which a wait ends though nothing happened: due predictions may have no token (an
#: expired lease, another producer), and arq writes its sign of life between two looks.
_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a worker holds predictions. Times in seconds."""

    #: names this process and no other
    worker: str
    lease: float
    queue_ttl: float
    result_ttl: float
    #: runs before a prediction that kills its worker is given up
    max_tries: int

    @property
    def kept_ms(self) -> int:
        """How long what goes with a prediction that waits is kept."""
        return round((self.queue_ttl + self.result_ttl) * 1000)


@dataclass(frozen=True, slots=True)
class Claim:
    """A prediction that this worker holds."""

    id: PredictionId
    #: its place in the queue, ms since 1970
    turn: float
    #: 1 for its first run
    tries: int
    #: as arq stores it; None where it has expired
    job: bytes | None
    #: what its in-progress key says while it is ours: worker:try:start
    token: str
    #: somebody asked for it to end before it was claimed
    is_canceled: bool

    @property
    def started(self) -> int:
        """When this run began, ms since 1970 by the store's clock."""
        return int(self.token.rpartition(":")[2])

    @property
    def waited(self) -> float:
        """Seconds from its submit to this run, by the store's clock."""
        return (self.started - self.turn) / 1000


class Claims:
    """The predictions that one worker holds, at most `slots()` at a time."""

    def __init__(
        self, redis: Redis, patience: Patience, terms: Terms, slots: Callable[[], int]
    ) -> None:
        self._redis = redis
        self._patience = patience
        self.terms = terms
        self._slots = slots
        self._held: dict[PredictionId, Claim] = {}
        self._is_alone = False
        self._leaving = False
        self._freed = asyncio.Event()
        self._waiting: asyncio.Task[Any] | None = None
        #: what the store's clock is ahead of `time.monotonic`; 0 before its first answer
        self._clock_ms = 0.0
        self._started = time.monotonic()
        self._register(even_if_full=False)

    async def open(self) -> bool:
        """Look at the server, then be ready to claim. Raises UnsuitableStore.

        Answers whether scripts can run when the store's memory is full.
        """
        info = await self._patiently(self._redis.info)
        check_server(info)
        even_if_full = version(info) >= (7, 0)
        self._register(even_if_full=even_if_full)
        return even_if_full

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
        self._leaving = True
        self._freed.set()
        if self._waiting:
            self._waiting.cancel()

    async def finish(self, id_: PredictionId, result: bytes) -> None:
        """End a prediction with `result`, unless it has ended already, by whomever."""
        finish_keys = [*keys.to_settle(id_), keys.PACE]
        args: list[Any] = [id_, result, *keys.lives(self.terms.result_ttl), self._held[id_].started]
        with contextlib.suppress(StoreUnavailable):  # leaving without it: it will be run again
            if not await self._patiently(lambda: self._finish(keys=finish_keys, args=args)):
                logger.warning("prediction %s had ended already; this result is dropped", id_)
        self._let_go(id_)

    async def emit(self, id_: PredictionId, first: int, said: list[tuple[str, Json]]) -> None:
        """Write what the run of a prediction that this worker holds has said.

        `first`: the number of the first of these events in this run.
        """
        if claim := self._held.get(id_):
            emit_keys = [keys.QUEUE, keys.IN_PROGRESS + id_, keys.EVENTS + id_, keys.RUN + id_]
            args: list[Any] = [id_, claim.token, first, self.terms.kept_ms]
            args += [part for each in said for part in each]
            with contextlib.suppress(StoreUnavailable):  # leaving without it
                await self._patiently(lambda: self._emit(keys=emit_keys, args=args))

    async def give_back(self, *ids: PredictionId) -> None:
        """Return predictions to their places in the queue; the tries do not count."""
        claims = [self._held[id_] for id_ in ids if id_ in self._held]
        # Before the store hears of it: a claim that is under way may get one of them anew.
        for id_ in ids:
            self._let_go(id_)
        if claims:
            with contextlib.suppress(StoreUnavailable):  # their leases will run out
                await self._patiently(
                    lambda: self._give_back(*give_back_arguments(self.terms, claims))
                )

    def _register(self, *, even_if_full: bool) -> None:
        def register(name: str) -> AsyncScript:
            text = script(name, even_if_full=even_if_full)
            registered: AsyncScript = self._redis.register_script(text)
            return registered

        self._claim = register("claim")
        self._finish = register("finish")
        self._emit = register("emit")
        self._give_back = register("give_back")

    def _free(self) -> int:
        if self._leaving or self._is_alone:
            return 0
        return self._slots() - len(self._held)

    def _let_go(self, id_: PredictionId) -> None:
        self._held.pop(id_, None)
        self._is_alone = self._is_alone and bool(self._held)
        self._freed.set()

    async def _slot_is_free(self) -> bool:
        self._freed.clear()
        if self._free() <= 0 and not self._leaving:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._freed.wait()
        return self._free() > 0

    async def _wait_for_work(self) -> None:
        """Until somebody submits, this worker is told to leave, or a second has passed."""
        began = time.monotonic()
        self._waiting = asyncio.ensure_future(
            self._redis.execute_command("BLPOP", keys.WAKE, _WAIT)
        )
        try:
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled() and (error := self._waiting.exception()):
                await self._meet(error)
        finally:
            self._waiting.cancel()
            self._waiting = None
        self._patience.noticed(time.monotonic() - began, _WAIT + self.terms.lease / 4)

    async def _claim_due(self) -> list[Claim]:
        sent_again = False
        while (free := self._free()) > 0:
            try:
                return self._take(await self._call_claim(free, sent_again=sent_again))
            except TROUBLE as error:
                await self._meet(error)
                sent_again = True
        return []

    async def _call_claim(self, free: int, *, sent_again: bool) -> list[Any]:
        terms, now = self.terms, time.monotonic()
        # After trouble, workers that outlived it get half a lease to renew what is theirs.
        quiet = now - max(self._started, self._patience.last_trouble)
        sent_ms = self.now_ms if self._clock_ms else 0
        args: list[Any] = [keys.JOB, keys.IN_PROGRESS, keys.TRIES, terms.worker]
        args += [
            round(terms.lease * 1000),
            free,
            _CLAIM_BYTES,
            terms.max_tries,
            len(self._held),
            sent_ms,
        ]
        args += [int(quiet > terms.lease / 2), int(sent_again), keys.EVENTS, keys.RUN, keys.WEBHOOK]
        reply: list[Any] = await self._claim(
            keys=[keys.QUEUE, keys.LEASES, keys.TURNS, keys.CANCELS, keys.WAKE], args=args
        )
        self._patience.over()
        self._patience.noticed(time.monotonic() - now, terms.lease / 4)
        self._clock_ms = reply[0] - time.monotonic() * 1000
        return reply

    def _take(self, reply: list[Any]) -> list[Claim]:
        claims = []
        for id_, turn, tries, job, canceled, token in reply[1:]:
            if not tries:
                logger.warning("dropped %r from the queue: it cannot be an id", id_[:100])
                continue
            name = PredictionId(id_.decode())
            claim = Claim(name, float(turn), tries, job, token.decode(), bool(canceled))
            # What it holds already is its own: the lease ran out, and nobody else came.
            if name not in self._held:
                claims.append(claim)
            self._held[name] = claim
            self._is_alone |= 1 < tries == self.terms.max_tries
        return claims

    async def _patiently(self, call: Callable[[], Any]) -> Any:
        """The answer of the store, whenever it comes. Raises StoreUnavailable when leaving."""
        while True:
            try:
                answer = await call()
            except TROUBLE as error:
                await self._meet(error)
            else:
                self._patience.over()
                return answer

    async def _meet(self, error: BaseException) -> None:
        if not isinstance(error, TROUBLE):
            raise error
        await heal(self._redis, error)
        await self._patience.wait(error)


def give_back_arguments(terms: Terms, claims: list[Claim]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of give_back.lua."""
    args: list[Any] = [keys.JOB, keys.IN_PROGRESS, keys.TRIES, round(terms.queue_ttl * 1000)]
    args += [keys.EVENTS, keys.WEBHOOK, terms.kept_ms]
    args += [part for claim in claims for part in (claim.id, claim.token)]
    return [keys.QUEUE, keys.LEASES, keys.TURNS, keys.WAKE], args
