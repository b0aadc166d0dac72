"""Ends the processes of a `predictor` command that was killed.

It reads process groups from standard input, one a line: "+123" to watch, "=123" to
watch and end last (the store, which the others write to), "-123" to forget. When the input ends,
because the command has closed it or was killed, it ends those that are left.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import IO

#: Seconds between SIGTERM and SIGKILL.
_GRACE = 3.0


class Guardian:
    """The command's end of the guardian."""

    def __init__(self, lock: IO[str] | None) -> None:
        """`lock` stays locked until the guardian has ended all that it watches."""
        self._lock = lock
        self._watched: dict[int, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep a guardian running until `close`."""
        while True:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "predictor.supervisor.guardian"),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=[self._lock.fileno()] if self._lock else [],
            )
            for group, sign in self._watched.items():
                self._send(f"{sign}{group}")
            if await self._process.wait() == 0:
                return

    def watch(self, group: int, *, last: bool) -> None:
        """End this process group if this process is killed."""
        self._watched[group] = "=" if last else "+"
        self._send(f"{self._watched[group]}{group}")

    def forget(self, group: int) -> None:
        self._watched.pop(group, None)
        self._send(f"-{group}")

    def close(self) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()

    def _send(self, line: str) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(line.encode() + b"\n")


def signal_group(group: int, signum: int) -> bool:
    """Signal a process group; returns whether there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
        return True
    return False


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
    deadline = time.monotonic() + _GRACE
    for group in groups:
        signal_group(group, signal.SIGTERM)
    while any(signal_group(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    guard()
