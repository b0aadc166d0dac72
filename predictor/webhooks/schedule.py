"""When a webhook that failed is tried again."""

import random

#: Seconds between two attempts, at most, give or take a tenth.
_LONGEST_PAUSE = 3600.0

#: Seconds after the end of a prediction for which a webhook is tried.
_PATIENCE = 24 * 3600.0


def next_attempt(tries: int, ended: float, now: float, retry_after: float | None) -> float | None:
    """Seconds to wait after `tries` attempts; None: give up. Never less than the receiver asked."""
    pause = min(2.0 ** min(tries, 20), _LONGEST_PAUSE) * random.uniform(0.9, 1.1)  # noqa: S311
    pause = max(pause, retry_after or 0.0)
    return pause if now + pause - ended <= _PATIENCE else None
