"""Does what its input names: what no process that has other things to do should meet."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from predictor import InvalidInput, Run, batched
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
    "hold": lambda: ctypes.PyDLL(None).usleep(30_000_000),
}
DOES: dict[str, Callable[[], object]] = {
    **ENDLESS,
    **KILLS,
    "pid": os.getpid,
    "raise": lambda: 1 / 0,
    "sleep": lambda: time.sleep(0.1),
    "stdin": sys.stdin.read,
    "channel": _break_channel,
    "fork": _terminated_fork,
    "own SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def predict(text: str, run: Run) -> object:
    word, _, argument = text.partition(" ")
    if word in WORDS:
        return WORDS[word](argument, run)
    return DOES[text]() if text in DOES else text


async def asynchronous(text: str, run: Run) -> object:
    """Holds up its own event loop, except when it waits."""
    if text == "wait":
        run.output("waits")
        await asyncio.sleep(30)
    if text == "give up":
        raise asyncio.CancelledError
    return predict(text, run)


@batched()
async def in_batches(texts: list[str]) -> list[str]:
    raise asyncio.CancelledError


def _with_family(argument: str, run: Run) -> object:
    fork = _FORK.Process(target=time.sleep, args=(30,))
    fork.start()
    run.output([os.getpid(), fork.pid, subprocess.Popen(["sleep", "30"]).pid])
    return DOES[argument]()


def _haunt(_: str, run: Run) -> str:
    threading.Timer(0.05, run.output, ["boo"]).start()
    return "gone"


def _refuse(argument: str, run: Run) -> None:
    raise InvalidInput(argument)


def _say(argument: str, run: Run) -> str:
    for number in range(int(argument)):
        run.output(number)
        run.progress((number + 1) / int(argument), f"{number + 1} of {argument}")
    return "said"


def _wait(_: str, run: Run) -> None:
    run.output("waits")
    while not run.canceled:
        time.sleep(0.01)


WORDS: dict[str, Callable[[str, Run], object]] = {
    "family": _with_family,
    "haunt": _haunt,
    "print": lambda argument, run: print(argument, flush=True),
    "refuse": _refuse,
    "say": _say,
    "told": lambda argument, run: [run.id, run.deadline, argument],
    "wait": _wait,
}


class Heavy:
    def __init__(self) -> None:
        raise MemoryError("too heavy")

    def predict(self, text: str) -> str:
        return text


def load_once() -> None:
    """Refuse all processes but the first `LOADS`, which the file `LOADED` counts."""
    if "LOADS" in os.environ:
        with Path(os.environ["LOADED"]).open("a+") as file:
            file.write("x")
            file.flush()
            if file.tell() > int(os.environ["LOADS"]):
                raise MemoryError("no room for another")


load_once()
