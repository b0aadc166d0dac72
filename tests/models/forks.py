"""Forks on every prediction, in the way that its input names; a number: takes so many seconds.

Input: `way path` or `seconds path`; the start is written down in the file at `path`.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORK = multiprocessing.get_context("fork")


def _pool() -> object:
    with _FORK.Pool(2) as pool:  # which terminates its processes at the end
        return pool.map(abs, range(-4, 0))


def _exit_code(process: BaseProcess) -> int | None:
    process.join(5)
    for _ in range(100):  # None for a moment, where another thread's `start` has just reaped it
        if process.exitcode is not None:
            break
        time.sleep(0.01)
    return process.exitcode


def _terminate() -> object:
    process = _FORK.Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    return _exit_code(process)


def _exit() -> object:
    process = _FORK.Process(target=sys.exit, args=(3,))
    process.start()
    return _exit_code(process)


def _fork() -> object:
    if (pid := os.fork()) == 0:
        sys.exit()
    return os.waitpid(pid, 0)[0] == pid


WAYS: dict[str, tuple[Callable[[], object], object]] = {
    "pool": (_pool, [4, 3, 2, 1]),
    "terminate": (_terminate, -15),
    "exit": (_exit, 3),
    "fork": (_fork, True),
}


def _begin(text: str) -> str:
    way, path = text.split(" ")
    with Path(path).open("a") as starts:
        starts.write(f"{text}\n")
    return way


def predict_in_thread(text: str) -> object:
    if (way := _begin(text)) in WAYS:
        return WAYS[way][0]()
    time.sleep(float(way))
    return None


async def predict(text: str) -> object:
    if (way := _begin(text)) in WAYS:
        return WAYS[way][0]()
    await asyncio.sleep(float(way))
    return None
