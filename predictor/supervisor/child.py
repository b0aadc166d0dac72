"""A process that is kept running."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from predictor.errors import ConfigError
from predictor.supervisor.guardian import Guardian, signal_group

logger = logging.getLogger(__name__)

_BACK_OFF = (0.2, 10.0)  # seconds until a restart: the first, and the longest; doubled each time
_STABLE = 10.0  # seconds of uptime after which the back-off starts anew


@dataclass(eq=False)
class Child:
    """A process that is started, watched, and restarted when it ends."""

    name: str
    command: list[str]
    environment: dict[str, str]
    guardian: Guardian
    #: whether it serves; called until it does for the first time
    is_ready: Callable[["Child"], Awaitable[bool]]
    #: more about why it does not start
    explain: Callable[[], str] = str
    ends_last: bool = False
    was_ready: bool = False
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep it running until `stop`. Raises ConfigError if it ends before it was ever ready."""
        pause = _BACK_OFF[0]
        while not self._stopping:
            started = time.monotonic()
            # A session of its own: Ctrl-C in the terminal is for the command, which stops in order.
            self._process = process = await asyncio.create_subprocess_exec(
                *self.command, env=self.environment, start_new_session=True
            )
            self.guardian.watch(process.pid, last=self.ends_last)
            if self._stopping:
                self.terminate(signal.SIGTERM)
            status = await process.wait()
            signal_group(process.pid, signal.SIGKILL)  # what it has left behind
            self.guardian.forget(process.pid)
            if self._stopping:
                return
            if status == os.EX_CONFIG or not self.was_ready:
                reason = f"(exit status {status}){self.explain()}"
                raise ConfigError(f"the {self.name} does not start {reason}")
            if time.monotonic() - started > _STABLE:
                pause = _BACK_OFF[0]
            logger.error("the %s ended (exit status %s): started again", self.name, status)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACK_OFF[1])

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and after `grace` seconds SIGKILL."""
        self.terminate(signal.SIGTERM)
        if self._process:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
            self.terminate(signal.SIGKILL)
            await self._process.wait()

    def terminate(self, signum: int) -> None:
        """Send the signal, and do not start it again."""
        self._stopping = True
        if self._process and self._process.returncode is None:
            signal_group(self._process.pid, signum)
