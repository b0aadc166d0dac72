"""Ends the processes of a `predictor` command that was killed.

It reads process groups from standard input: "+123" to watch, "=123" to watch and end last (the
store), "-123" to forget. When the input ends, it ends the groups that are left, and removes the
folder in its argument.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO

_GRACE = 3.0  # seconds between SIGTERM and SIGKILL


class Guardian:
    """The command's end of the guardian, and of its standard input."""

    def __init__(self, lock: IO[str] | None, scratch: Path) -> None:
        """`lock` stays locked until the guardian has ended all that it watches."""
        self._lock, self._scratch = lock, scratch
        self._watched: dict[int, str] = {}
        self._input, self._output = os.pipe()
        os.set_blocking(self._output, False)

    async def run(self) -> None:
        """Keep a guardian running until `close`."""
        import asyncio  # not at the top: the guardian itself does without it

        command = (sys.executable, "-m", "predictor.supervisor.guardian", self._scratch)
        fds = [self._lock.fileno()] if self._lock else []
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=self._input, start_new_session=True, pass_fds=fds
            )
            if await process.wait() == 0:
                return
            for group, sign in self._watched.items():
                self.watch(group, sign)

    def watch(self, group: int, sign: str) -> None:
        """End a process group if this process is killed: +, with =: last, with -: no longer."""
        self._watched[group] = sign
        with contextlib.suppress(BlockingIOError):  # many lines that no guardian has read
            os.write(self._output, f"{sign}{group}\n".encode())
        if sign == "-":
            del self._watched[group]

    def close(self) -> None:
        os.close(self._output)


def signal_group(group: int, signum: int) -> bool:
    """Signal a process group; returns whether there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
        return True
    return False


def guard() -> None:
    """Watch until standard input ends, then end what is left."""
    signs: dict[int, str] = {}
    for line in sys.stdin:
        signs[int(line[1:])] = line[0]
    for stage in "+=":
        groups = [group for group, sign in signs.items() if sign == stage]
        deadline = time.monotonic() + _GRACE
        for group in groups:
            signal_group(group, signal.SIGTERM)
        while any(signal_group(group, 0) for group in groups) and time.monotonic() < deadline:
            time.sleep(0.05)
        for group in groups:
            signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    guard()
    shutil.rmtree(sys.argv[1], ignore_errors=True)
