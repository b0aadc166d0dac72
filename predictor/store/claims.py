"""The worker's side of the store: claim, finish, requeue. A claim is a lease on a prediction."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from predictor import errors
from predictor.config import Config
from predictor.logs import log_end
from predictor.prediction import Json, Output, PredictionId, outcome_of
from predictor.store import keys
from predictor.store.metrics import bucket
from predictor.store.retry import STORE_ERRORS, StoreRetry, ValueRefused
from predictor.store.wire import Model, encode_ended

logger = logging.getLogger(__name__)

_CLAIM_BYTES = 8 * 2**20  # bytes of jobs in the reply to one claim, beyond the first job
#: How often a prediction may be requeued, for each try that it has: then it is what stops its
#: workers, and is given up.
_MOST_REQUEUES = 10
#: Seconds after which a wait ends though nothing happened: due predictions may have no token (an
#: expired lease, another producer), and arq writes its sign of life between two polls.
_WAIT = 1.0
_LOST = re.compile(r"^(\d{1,15}) (\S+:\d{1,9}:\d{1,15})$", re.MULTILINE)
_GATHER, _ENOUGH = 0.003, 4  # seconds between two claims of at least so many


class Claim(NamedTuple):
    id: PredictionId
    queued_at: float  # its place in the queue, ms since 1970 by the store's clock
    job: bytes | None  # as arq stores it; None where it has expired
    token: str  # the value of its in-progress key: worker:try:start
    verdict: str  # why it is not to be run: canceled, expired or given_up; empty where it is
    tries: int  # 1 for its first run
    started: int  # when this run began, as `queued_at`

    @property
    def waited(self) -> float:
        """Seconds from its submit to this run."""
        return (self.started - self.queued_at) / 1000


class Claims:
    """The predictions that one worker holds, at most `slots()` at a time."""

    def __init__(
        self, config: Config, retry: StoreRetry, worker: str, slots: Callable[[], int]
    ) -> None:
        """`worker` names this process and no other."""
        self.worker, self.retry = worker, retry
        self.held: dict[PredictionId, Claim] = {}
        self.requeued = 0  # how many were returned to the queue
        #: what it released since its last call for claims
        self._released: set[tuple[PredictionId, str]] = set()
        self._config, self._slots = config, slots
        #: whether it is kept for suspects, and whether what it holds are suspects
        self._is_quarantined = self._has_suspects = False
        #: whether more may have been due at the last claim; what came since has left a token
        self._is_more_due = True
        self._last_count, self._last_claim = 0, 0.0  # how many it brought, and when it was made
        self._company: int | None = None  # how many it held when it was told to stop
        self._freed = asyncio.Event()
        self._waiting: asyncio.Task[Any] | None = None
        self._clock_ms = 0.0  # by which the store's is ahead of `time.monotonic`; 0: not known yet

    @property
    def _now_ms(self) -> int:
        """The store's clock, as far as this worker knows it; ms since 1970."""
        return round(time.monotonic() * 1000 + self._clock_ms)

    async def claim(self) -> list[Claim]:
        """New claims, as many as are due and there are slots for; waits a moment for both.

        An empty list means: call again. After `stop_claiming` this raises CancelledError as soon as
        nothing is held any more, which ends arq's loop.
        """
        if self._company is not None:
            while self.held:
                await self._wait_for_slot()
            raise asyncio.CancelledError
        claims: list[Claim] = []
        with contextlib.suppress(errors.StoreUnavailable):
            if self._free() <= 0:
                await self._wait_for_slot()
            claims = await self._claim_due() if self._is_more_due else []
            if not claims and self._free() > 0:
                await self._wait_for_work()
                await self._gather()
                claims = await self._claim_due()
        return claims

    def stop_claiming(self, retry_for: float) -> None:
        """Claim nothing from now on; retry calls to the store for so many seconds."""
        self._company = self._company or len(self.held)
        self._freed.set()
        if self._waiting:
            self._waiting.cancel()
        self.retry.give_up_after(retry_for)

    async def finish(self, claim: Claim, outcome: Output | errors.PredictionError) -> None:
        """End a prediction, unless it has ended already."""
        with contextlib.suppress(errors.StoreUnavailable):  # at shutdown: it will be run again
            try:
                written = await self._finish(claim, outcome)
            except ValueRefused as refused:
                outcome = errors.ModelFailed(str(refused))
                written = await self._finish(claim, outcome)
            if written < 0:
                outcome = errors.TimedOut()
                written = await self._finish(claim, outcome)
            if written:
                ran = (self._now_ms - claim.started) / 1000
                times = max(0.0, claim.waited), max(0.0, ran)
                log_end(claim.id, "sync" if written == 2 else "async", outcome_of(outcome), *times)
            else:
                logger.warning("prediction %s had ended already; this result is dropped", claim.id)
        self._release(claim.id)

    async def _finish(self, claim: Claim, outcome: Output | errors.PredictionError) -> int:
        created, started = max(0.0, min(claim.queued_at, claim.started)), claim.started
        times = (int(created), started, max(started, self._now_ms))  # all by the store's clock
        model: Model = {"model": self._config.model, "model_version": self._config.model_version}
        result = encode_ended(claim.id, outcome, claim.tries, times, {} if claim.verdict else model)
        ttl = round(1000 * self._config.result_ttl)
        run, wait = times[2] - started, started - times[0]
        ended = outcome_of(outcome)
        if not claim.verdict:
            ended += f" {bucket(run / 1000)} {bucket(wait / 1000)} {1000 * run} {1000 * wait}"
        args = ("finish", claim.id, result, ttl, self.worker, started, ended)
        return int(await self.retry.until_answered(self.retry.scripts.run, *args, size=len(result)))

    async def emit(self, id_: PredictionId, first: int, events: list[tuple[str, Json]]) -> None:
        """Write events of a run; `first`: the number of the first of them in this run."""
        if claim := self.held.get(id_):
            parts = [part for event in events for part in event]
            args, size = ("emit", id_, claim.token, first, *parts), sum(map(len, parts))
            try:
                await self.retry.until_end(self.retry.scripts.run, *args, size=size)
            except ValueRefused as refused:
                logger.warning("prediction %s: a piece of output is dropped: %s", id_, refused)

    async def lost(self, claim: Claim) -> list[tuple[float, str]]:
        """Of tries whose workers died: when that was seen, as `queued_at`, and the token."""
        ask = ("HGET", keys.PREDICTION + claim.id, "lost")
        kept = await self.retry.until_end(self.retry.redis.execute_command, *ask)
        found = _LOST.findall((kept or b"").decode(errors="replace"))
        return [(float(ms), token) for ms, token in found]

    async def requeue(self, *ids: PredictionId) -> None:
        """Return predictions to their places in the queue; the tries do not count."""
        claims = [self.held[id_] for id_ in ids if id_ in self.held]
        self.requeued += len(claims)
        # Before the store knows: a claim that is under way may get one of them anew.
        for id_ in ids:
            self._release(id_)
        if claims:
            args = ("requeue", *self.requeue_arguments(claims))
            await self.retry.until_end(self.retry.scripts.run, *args)  # else their leases run out

    def requeue_arguments(self, claims: Iterable[Claim]) -> list[Any]:
        most = self._config.max_tries
        args: list[Any] = [self.worker, _MOST_REQUEUES * most, max(3, most), self._company or 0]
        return args + [part for claim in claims for part in (claim.id, claim.token)]

    def _free(self) -> int:
        is_closed = self._company is not None or self._has_suspects
        return 0 if is_closed else self._slots() - len(self.held)

    def _release(self, id_: PredictionId) -> None:
        if claim := self.held.pop(id_, None):
            self._released.add((id_, claim.token))
        self._has_suspects = self._has_suspects and bool(self.held)
        self._freed.set()

    async def _wait_for_slot(self) -> None:
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT):
                await self._freed.wait()

    async def _wait_for_work(self) -> None:
        """Until something is submitted, this worker is to stop, or a second has passed."""
        if self._is_quarantined:  # what is submitted is for others: it waits to be empty
            await self._wait_for_slot()
            return
        began = time.monotonic()
        wait = self.retry.redis.execute_command("BLPOP", keys.WAKE, _WAIT)
        self._waiting = asyncio.ensure_future(wait)
        try:
            # A server forgets the wait when its clock is set back.
            ended, _ = await asyncio.wait({self._waiting}, timeout=2 * _WAIT)
            if ended and not self._waiting.cancelled() and (error := self._waiting.exception()):
                await self.retry.wait(error)
        finally:
            self._waiting.cancel()
            self._waiting = None
        usual = _WAIT + max(0.15, self._config.lease / 4)  # a server looks ten times a second
        self.retry.observed(time.monotonic() - began, usual)

    async def _gather(self) -> None:
        """Let claims be _GATHER apart while that pays: each costs as much as running a few."""
        if self._last_count >= _ENOUGH:
            await asyncio.sleep(self._last_claim + _GATHER - time.monotonic())

    async def _claim_due(self) -> list[Claim]:
        is_repeat = False
        while (free := self._free()) > 0:
            try:
                return self._hold(await self._claim(free, is_repeat=is_repeat))
            except STORE_ERRORS as error:
                await self.retry.wait(error)
                is_repeat = True
        return []

    async def _claim(self, free: int, *, is_repeat: bool) -> list[Any]:
        config, began = self._config, time.monotonic()
        self._released.clear()
        # After trouble, workers that outlived it get half a lease to renew what is theirs.
        quiet = began - self.retry.last_failure
        expected_ms = self._now_ms if self._clock_ms else 0
        args: list[Any] = [self.worker, round(1000 * config.lease), free, _CLAIM_BYTES]
        args += [config.max_tries, len(self.held), int(self._is_quarantined), expected_ms]
        args += [int(quiet > config.lease / 2), int(is_repeat)]
        reply: list[Any] = await self.retry.scripts.run("claim", *args, is_large=True)
        took = time.monotonic() - began
        self._last_count, self._last_claim = len(reply) - 3, began
        self.retry.recovered()
        # A clock that was set makes leases run out as a store that was frozen does.
        jumped = (reply[0] - expected_ms) / 1000 if expected_ms else 0
        self.retry.observed(max(took, jumped), config.lease / 4)
        self._clock_ms = reply[0] - time.monotonic() * 1000
        return reply

    def _hold(self, reply: list[Any]) -> list[Claim]:
        self._is_quarantined, self._is_more_due = bool(reply[1]), bool(reply[2])
        claims = []
        for id_, queued_at, job, token, verdict in reply[3:]:
            if verdict == b"dropped":
                logger.warning("dropped %r from the queue: it cannot be an id", id_[:100])
                continue
            name, run = PredictionId(id_.decode()), token.decode()
            tries, started = map(int, run.split(":")[-2:])
            claim = Claim(name, float(queued_at), job, run, verdict.decode(), tries, started)
            if (name, run) in self._released:
                continue  # a repeated call, and another overtook its reply
            # What it holds already is its own: the lease ran out, and nobody else came.
            if name not in self.held:
                claims.append(claim)
            self.held[name] = claim
        self._has_suspects |= self._is_quarantined and bool(claims)
        return claims
