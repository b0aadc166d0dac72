"""The worker's side of the store: claim, finish, give back. A claim is a lease on a prediction."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from predictor.prediction import PredictionId
from predictor.store import keys
from predictor.store.scripts import script

logger = logging.getLogger(__name__)

#: Bytes of jobs in the answer to one claim, beyond the first job: many large ones come in turns.
_CLAIM_BYTES = 8 * 2**20

#: Seconds after which a wait ends though nothing happened: due predictions may have no token (an
#: expired lease, another producer), and arq writes its sign of life between two looks.
_WAIT = 1.0


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
    #: what its in-progress key says while it is ours
    token: str


class Claims:
    """The predictions that one worker holds, at most `slots()` at a time."""

    def __init__(
        self,
        redis: Redis,
        *,
        worker: str,
        lease: float,
        queue_ttl: float,
        result_ttl: float,
        slots: Callable[[], int],
    ) -> None:
        """`worker` names this process and no other; `lease` and the times to live are seconds."""
        self._redis = redis
        self._worker = worker
        self._lease_ms = round(lease * 1000)
        self._queue_ttl_ms = round(queue_ttl * 1000)
        self._result_ttl_ms = round(result_ttl * 1000)
        self._slots = slots
        self._held: dict[PredictionId, Claim] = {}
        self._leaving = False
        self._freed = asyncio.Event()
        self._waiting: asyncio.Task[Any] | None = None
        self._claim = redis.register_script(script("claim"))
        self._finish = redis.register_script(script("finish"))
        self._give_back = redis.register_script(script("give_back"))

    @property
    def held(self) -> dict[PredictionId, Claim]:
        """What this worker holds now."""
        return self._held

    async def claim(self) -> list[Claim]:
        """New claims, as many as are due and there are slots for; waits a moment for both.

        An empty list means: look again. After `leave` there are no new ones.
        """
        if not await self._slot_is_free():
            return []
        if claims := await self._claim_due():
            return claims
        await self._wait_for_work()
        return await self._claim_due()

    def leave(self) -> None:
        """Claim nothing from now on; a wait ends at once."""
        self._leaving = True
        self._freed.set()
        if self._waiting:
            self._waiting.cancel()

    async def finish(self, claim: Claim, result: bytes) -> bool:
        """End a prediction with `result`; False if it had ended already, by whomever."""
        first = await self._finish(
            keys=[
                keys.QUEUE,
                keys.LEASES,
                keys.TURNS,
                keys.JOB + claim.id,
                keys.IN_PROGRESS + claim.id,
                keys.TRIES + claim.id,
                keys.RESULT + claim.id,
            ],
            args=[claim.id, result, self._result_ttl_ms],
        )
        self._let_go(claim)
        if not first:
            logger.warning("prediction %s had ended already; this result is dropped", claim.id)
        return bool(first)

    async def give_back(self, *claims: Claim) -> None:
        """Return predictions to their places in the queue; the tries do not count."""
        if claims:
            await self._give_back(
                keys=[keys.QUEUE, keys.LEASES, keys.TURNS, keys.WAKE],
                args=[
                    keys.JOB,
                    keys.IN_PROGRESS,
                    keys.TRIES,
                    self._queue_ttl_ms,
                    *(part for claim in claims for part in (claim.id, claim.token)),
                ],
            )
        for claim in claims:
            self._let_go(claim)

    def _free(self) -> int:
        return 0 if self._leaving else self._slots() - len(self._held)

    def _let_go(self, claim: Claim) -> None:
        self._held.pop(claim.id, None)
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
        self._waiting = asyncio.ensure_future(
            self._redis.execute_command("BLPOP", keys.WAKE, _WAIT)
        )
        try:
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                self._waiting.result()
        finally:
            self._waiting.cancel()
            self._waiting = None

    async def _claim_due(self) -> list[Claim]:
        if (free := self._free()) <= 0:
            return []
        reply = await self._claim(
            keys=[keys.QUEUE, keys.LEASES, keys.TURNS, keys.WAKE],
            args=[
                keys.JOB,
                keys.IN_PROGRESS,
                keys.TRIES,
                self._worker,
                self._lease_ms,
                free,
                _CLAIM_BYTES,
            ],
        )
        claims = []
        for id_, turn, tries, job in reply:
            if not tries:
                logger.warning("dropped %r from the queue: it cannot be an id", id_[:100])
                continue
            name = PredictionId(id_.decode())
            claim = Claim(name, float(turn), tries, job, f"{self._worker}:{tries}")
            self._held[name] = claim
            claims.append(claim)
        return claims
