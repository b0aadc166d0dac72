"""Kills the process that runs it, in the way that its input names; else takes a moment."""

import asyncio
import ctypes
import os
import resource
import signal
from collections.abc import Callable

KILLS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(9),
    "signal": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


async def predict(text: str) -> str:
    if text in KILLS:
        await asyncio.sleep(0.1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        KILLS[text]()
        await asyncio.sleep(30)  # for what is not killed at once
    await asyncio.sleep(0.3)
    return text
