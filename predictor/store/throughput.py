"""How fast predictions end, and what follows for those that wait. Times in seconds."""

import math
from dataclasses import dataclass
from typing import Any

#: Time over which the count decays; finish.lua has the same.
_MEMORY = 60.0
#: The longest estimate.
_MOST = 3600.0


@dataclass(frozen=True, slots=True)
class Throughput:
    per_second: float  # 0: unknown
    run: float  # how long a prediction runs

    @classmethod
    def read(cls, now_ms: int, fields: list[Any]) -> "Throughput":
        """From the reply of a script: the fields of THROUGHPUT."""
        try:
            count, at, since, run = (float(field) for field in fields)
        except (TypeError, ValueError):
            return cls(0, 0)
        now = now_ms / 1000
        # Over less than a second there is no throughput to speak of.
        share = 1 - math.exp(min(since - now, -1) / _MEMORY)
        per_second = count * math.exp(min(at - now, 0) / _MEMORY) / (_MEMORY * share)
        return cls(per_second if 0 < per_second < math.inf else 0, max(run, 0.0))

    def until_start(self, place: int) -> float | None:
        """Until the prediction at `place` in the queue, 0 the first, starts; None: unknown."""
        return min(place / self.per_second, _MOST) if self.per_second else None

    def until_end(self, place: int, ran: float = 0) -> float:
        """Until a prediction should be read that has run for `ran`, or is at `place`."""
        start = self.until_start(place)
        return 1.0 if start is None else min(start + max(self.run - ran, 0.0), _MOST)
