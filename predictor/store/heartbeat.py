"""The heartbeat of one worker: a process that renews its leases for as long as it lives.

A process of its own, because a model may hold its worker's interpreter for longer than a lease. It
reads the arguments of `Heartbeat` as JSON from standard input. It writes an empty line to standard
output when it is ready, and the ids of predictions that need not go on, one a line.
"""

import contextlib
import functools
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import redis

from predictor.store import keys
from predictor.store.connection import blocking_client
from predictor.store.scripts import Scripts

_LOOK_EVERY = 1.0  # seconds between two looks at whether the worker lives


class Heartbeat:
    """Renews what one worker holds, and waits for ids to cancel. Times in seconds."""

    def __init__(self, url: str, worker: str, about: str, lease: float, timeout: float) -> None:
        """`about`: what is told of the worker. `timeout`: how long a run may take."""
        self._worker, self._about, self._lease, self._timeout = worker, about, lease, timeout
        self._parent = os.getppid()
        self._requests = keys.CANCEL_REQUESTS + worker
        # A wait that the server forgets (its clock was set back) must not outlast the lease.
        limit = 2 * min(lease / 3, _LOOK_EVERY)
        self._client = blocking_client(url, socket_timeout=limit, socket_connect_timeout=1)
        self._scripts = Scripts(self._client)
        #: seconds that the store's clock was ahead of `time.monotonic`, at least and at most
        self._least, self._most = math.inf, -math.inf

    def run(self) -> None:
        """Return when the worker has ended."""
        pause, due = self._lease / 3, time.monotonic()
        while os.getppid() == self._parent:
            try:
                wait = max(0.01, min(due - time.monotonic(), _LOOK_EVERY))
                found: Any = self._client.execute_command("BLPOP", self._requests, wait)
                if found:
                    _write(found[1])
                if time.monotonic() >= due:
                    if os.getppid() == self._parent and not _is_stopped(self._parent):
                        self.beat_once()
                    due = time.monotonic() + pause
            except (redis.RedisError, OSError) as error:
                if "WRONGTYPE" in str(error):
                    with contextlib.suppress(redis.RedisError, OSError):
                        self._scripts.run("drop_wrong_types", self._requests)
                time.sleep(min(0.3, pause / 3))
                due = time.monotonic()

    def beat_once(self) -> None:
        seconds, us = self._client.time()  # type: ignore[misc]
        ahead = seconds + us / 1_000_000 - time.monotonic()
        self._least, self._most = min(self._least, ahead), max(self._most, ahead)
        # What the clock was set meanwhile, or the machine slept, no run has run.
        longest_run = self._timeout + 2 * self._lease + self._most - self._least
        times = (round(1000 * self._lease), round(1000 * longest_run))
        for id_ in self._scripts.run("renew", self._worker, *times, self._about):
            _write(id_)


def _write(id_: bytes) -> None:
    print(id_.decode(errors="replace"), flush=True)  # noqa: T201


def _report(log: list[str], *error: Any) -> None:
    """Log what ends this process."""
    from predictor.logs import configure_logging  # with pydantic, which takes memory

    configure_logging(*log)
    sys.excepthook(*error)


def _is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal: it does not go on with what it holds."""
    with contextlib.suppress(OSError):  # not Linux
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # they are for the worker, which may need its leases
    fields = json.loads(sys.stdin.readline())
    sys.excepthook = functools.partial(_report, fields.pop("log"))
    with contextlib.suppress(BrokenPipeError):
        heartbeat = Heartbeat(**fields)
        with contextlib.suppress(redis.RedisError, OSError):
            heartbeat.beat_once()  # its worker counts as alive before it is ready
        _write(b"")  # ready
        heartbeat.run()
