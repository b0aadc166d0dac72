"""Ends the processes of a `predictor` command that can no longer do so itself.

Reads process groups from standard input, "+123" to watch and "-123" to forget, one a line. When the
input ends, because the command is done or was killed, those that are left are ended: the last
started first, so the store, which is the first, outlives those that write to it.
"""

import contextlib
import os
import signal
import sys
import time

#: Seconds between asking a group to end and making it.
_GRACE = 5.0


def guard() -> None:
    """Watch until standard input ends, then end what is left."""
    groups: list[int] = []
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        if sign == "+":
            groups.append(group)
        elif group in groups:
            groups.remove(group)
    store, others = groups[:1], groups[1:]
    _end(others)
    _end(store)


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
