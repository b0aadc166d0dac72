"""Hold what they should not, for as many seconds as their input says."""

import ctypes
import time
from pathlib import Path


def _begin(text: str) -> float:
    seconds, _, path = text.partition(" ")
    with Path(path).open("a") as starts:
        starts.write("start\n")
    return float(seconds)


def computes(text: str) -> str:
    """Pure Python, in a thread: takes the interpreter's lock whenever it can."""
    deadline = time.monotonic() + _begin(text)
    while time.monotonic() < deadline:
        pass
    return text


def holds_the_lock(text: str) -> str:
    """An extension that never gives the interpreter's lock back while it works."""
    ctypes.PyDLL(None).usleep(int(_begin(text) * 1e6))
    return text
