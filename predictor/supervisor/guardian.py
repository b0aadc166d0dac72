"""Ends the processes of a `predictor` command that can no longer do so itself.

Reads process groups from standard input, one a line: "+123" to watch, "=123" to watch and end last
(the store, which the others write to), "-123" to forget. When the input ends, because the command
is done or was killed, it ends those that are left.
"""

import contextlib
import os
import signal
import sys
import time

#: Seconds between asking a group to end and making it.
_GRACE = 3.0


def guard() -> None:
    """Watch until standard input ends, then end what is left."""
    watched: dict[int, str] = {}
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        watched.pop(group, None)
        if sign != "-":
            watched[group] = sign
    for turn in "+=":
        _end([group for group, sign in watched.items() if sign == turn])


def _end(groups: list[int]) -> None:
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while _signal(groups, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(groups, signal.SIGKILL)


def _signal(groups: list[int], signum: int) -> bool:
    """Signal each group; whether any is there."""
    found = False
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signum)
            found = True
    return found


if __name__ == "__main__":
    guard()
