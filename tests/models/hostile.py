"""Does what its input names: what no process that has other things to do should meet."""

import asyncio
import ctypes
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from predictor import InvalidInput, Run
from tests.models.deadly import KILLS

_FORK = multiprocessing.get_context("fork")


def _spin() -> None:
    while True:
        pass


def _break_channel() -> None:
    os.write(int(sys.argv[1]), b"what is this?" * 10)
    time.sleep(30)


def _terminated_fork() -> object:
    process = _FORK.Process(target=time.sleep, args=(30,))
    process.start()
    process.terminate()
    process.join(5)
    return process.exitcode


#: None of these ends.
ENDLESS: dict[str, Callable[[], object]] = {
    "spin": _spin,
    "count in C": lambda: sum(itertools.repeat(1)),
    "hold": lambda: ctypes.PyDLL(None).usleep(30_000_000),
}
DOES: dict[str, Callable[[], object]] = {
    **ENDLESS,
    **KILLS,
    "pid": os.getpid,
    "stdin": sys.stdin.read,
    "channel": _break_channel,
    "fork": _terminated_fork,
    "own SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def predict(text: str, run: Run) -> object:
    word, _, argument = text.partition(" ")
    if word == "family":  # and waits for nobody
        fork = _FORK.Process(target=time.sleep, args=(30,))
        fork.start()
        run.output([os.getpid(), fork.pid, subprocess.Popen(["sleep", "30"]).pid])
        return DOES[argument]()
    if word == "haunt":
        threading.Timer(0.05, run.output, ["boo"]).start()
        return "gone"
    if word == "refuse":
        raise InvalidInput("Not this.")
    if word == "print":
        print(argument, flush=True)
    return DOES[text]() if text in DOES else len(text)


def attentive(text: str, run: Run) -> int:
    """Ends when it is canceled; `pid` is what it answers else."""
    run.output("started")
    while text != "pid" and not run.canceled:
        time.sleep(0.01)
    return os.getpid()


async def asynchronous(text: str, run: Run) -> int:
    run.output("started")
    if text != "pid":
        await asyncio.sleep(30)
    return os.getpid()


async def blocking(text: str, run: Run) -> object:
    """Holds up its own event loop."""
    return predict(text, run)


def told(text: str, run: Run) -> dict[str, object]:
    return {"id": run.id, "deadline": run.deadline, "text": text}


def load_once() -> None:
    """Refuse all processes but the first `LOADS`, which the file `LOADED` counts."""
    if "LOADS" in os.environ:
        with Path(os.environ["LOADED"]).open("a+") as file:
            file.write("x")
            file.flush()
            if file.tell() > int(os.environ["LOADS"]):
                raise MemoryError("no room for another")


load_once()
