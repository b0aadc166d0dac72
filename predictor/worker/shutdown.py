"""Shutdown on SIGTERM or SIGINT: drains, returns what does not finish, and ends in time."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from predictor.process import disown_forks
from predictor.store.claims import Claims
from predictor.worker.execution import Executor

logger = logging.getLogger(__name__)

#: Seconds past the drain after which the process is ended by force.
_GRACE = 0.5


@dataclass
class Shutdown:
    """Handles signals from now on. The first starts the drain, the second ends it at once."""

    drain: float
    claims: Claims
    executor: Executor
    #: returns all claims to the queue, from a thread
    requeue: Callable[[], None]

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            # Beside arq's handler, not instead of it: the loop reads the signal's number from its
            # wake-up pipe, whatever Python-level handler there is.
            signal.signal(signum, self._on_signal)
        disown_forks()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        drain, self.drain = self.drain, 0.0
        self._loop.call_soon_threadsafe(self._start, drain)
        # A thread, because a model, or a wait that swallowed arq's cancel, can block the loop.
        watchdog = threading.Timer(drain + _GRACE, self._exit)
        watchdog.daemon = True
        watchdog.start()

    def _start(self, drain: float) -> None:
        self.claims.stop_claiming(drain + _GRACE / 2)
        self._loop.call_later(drain, self.executor.interrupt)

    def _exit(self) -> None:
        count = self.executor.requeued + len(self.claims.held)
        logger.warning("not drained in time; worker stopped; predictions requeued: %d", count)
        self.requeue()
        os._exit(0)
