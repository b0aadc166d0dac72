"""What is counted. The scripts count what the store decides; each api process adds its own."""

import asyncio
import bisect
import contextlib
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, Self

from pydantic import BaseModel, ValidationError

from predictor import errors

#: Upper bounds of the histograms, in seconds; and their names, with that of what is longer.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
BOUNDS: Final = (*(str(float(bound)) for bound in BUCKETS), "+Inf")
#: Why a request for a prediction was refused.
REASONS: Final = ("queue_full", "rate", "open", "slots_taken", "loading")
_TELL_EVERY = 1.0  # seconds


def bucket(seconds: float) -> str:
    """The name of the bucket that counts such a time."""
    return BOUNDS[bisect.bisect_left(BUCKETS, seconds)]


class WorkerInfo(BaseModel):
    """A worker that is alive."""

    worker: str
    slots: int
    model: str
    model_version: str


def read_workers(texts: Iterable[bytes]) -> list[WorkerInfo]:
    """Those that are described: anybody may have written others."""
    known = list[WorkerInfo]()
    for text in texts:
        with contextlib.suppress(ValidationError):
            known.append(WorkerInfo.model_validate_json(text))
    return known


class Snapshot(NamedTuple):
    """All metrics, at one moment."""

    counts: Counter[str]
    queued: int
    oldest: float  # seconds since the oldest of the queue was submitted
    running: int
    workers: list[WorkerInfo]


def _names(name: str) -> list[str]:
    """What is counted under one name: finish.lua counts all of a prediction that ran at once."""
    match name.split():
        case ["predictions", mode, outcome, run, wait]:
            return [f"predictions {mode} {outcome}", f"run {mode} {run}", f"queue_wait {wait}"]
    return [name]


class Metrics(contextlib.AbstractAsyncContextManager["Metrics"]):
    """The counts of this process, which are added to the store's every second."""

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        """`run` runs a script, of which it takes the name and the arguments."""
        self._run = run
        self._counts = defaultdict[str, int](int)  # a Counter would take three times as long
        self._untold = dict[str, int]()
        self._process, self._number = secrets.token_hex(8), 0

    async def __aenter__(self) -> Self:
        self._telling = asyncio.create_task(self._tell_regularly())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._telling.cancel()
        await asyncio.wait({self._telling})
        with contextlib.suppress(errors.StoreUnavailable):
            await self._tell()
            await self._tell()  # what came while the first part was on its way

    def refused(self, reason: str) -> None:
        """Count a refusal, for one of REASONS."""
        self._counts[f"rejected {reason}"] += 1

    def ended(self, outcome: str, seconds: float | None) -> None:
        """Count a sync prediction, which ran for so many seconds; None: it did not run."""
        self._counts[f"predictions sync {outcome}"] += 1
        if seconds is not None:
            self._counts[f"run sync {bucket(seconds)}"] += 1
            self._counts["run sync us"] += int(seconds * 1e6)

    async def read(self) -> Snapshot:
        """All that is counted, here and elsewhere. Raises StoreUnavailable."""
        with contextlib.suppress(errors.StoreUnavailable):  # it may take no writes
            await self._tell()
        pairs, queued, oldest_ms, running, workers = await self._run("metrics", is_large=True)
        fields = zip(pairs[::2], pairs[1::2], strict=True)
        is_count = re.compile(rb"\d{1,19}").fullmatch  # anybody may have written others
        counts = Counter[str]()
        for name, count in fields:
            if is_count(count):
                for each in _names(name.decode(errors="replace")):
                    counts[each] += int(count)
        return Snapshot(counts, queued, oldest_ms / 1000, running, read_workers(workers))

    async def _tell_regularly(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY)
            with contextlib.suppress(errors.StoreUnavailable):
                await self._tell()

    async def _tell(self) -> None:
        """Add to the store what was counted here: again, until it has confirmed."""
        if not self._untold:
            self._untold, self._counts = self._counts, defaultdict(int)
            self._number += 1
        if told := self._untold:
            parts = [part for pair in told.items() for part in pair]
            await self._run("count", self._process, self._number, *parts)
            if self._untold is told:
                self._untold = {}
