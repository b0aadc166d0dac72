"""How fast predictions end, and what follows for those that wait."""

import math
from dataclasses import dataclass
from typing import Any

#: Seconds over which the count decays; finish.lua has the same.
_MEMORY = 60.0

#: Seconds that are said where nothing is known, and at most.
_UNKNOWN, _MOST = 10.0, 3600.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """What THROUGHPUT says at one moment. Seconds."""

    per_second: float
    run: float

    @classmethod
    def read(cls, now_ms: int, fields: list[Any]) -> "Throughput | None":
        """From a script's answer; None where nothing ended lately."""
        try:
            count, at, since, run = (float(field) for field in fields)
        except (TypeError, ValueError):
            return None
        now = now_ms / 1000
        # Over less than a second there is no throughput to speak of.
        share = 1 - math.exp(min(since - now, -1) / _MEMORY)
        per_second = count * math.exp(min(at - now, 0) / _MEMORY) / (_MEMORY * share)
        return cls(per_second, max(run, 0.0)) if 0 < per_second < math.inf else None


def until_place(throughput: Throughput | None) -> float:
    """Seconds until a place in a full queue is free."""
    return min(1 / throughput.per_second, _MOST) if throughput else _UNKNOWN


def until_start(place: int, throughput: Throughput | None) -> float | None:
    """Seconds until the prediction at `place` in the queue, 0 the first, starts; None: unknown."""
    return min(place / throughput.per_second, _MOST) if throughput else None


def until_end(place: int, ran: float, throughput: Throughput | None) -> float:
    """Seconds until it is worth asking again: place in the queue, seconds that it ran already."""
    if throughput is None:
        return 1.0
    return min(place / throughput.per_second + max(throughput.run - ran, 0.0), _MOST)
