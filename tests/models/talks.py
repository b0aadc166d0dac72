"""Models that talk to their run. Input: how many pieces, then, if it matters, seconds between."""

import asyncio
import os
import signal
import time
from pathlib import Path

from predictor import Run


def _read(text: str) -> tuple[int, float]:
    count, _, pause = text.partition(" ")
    return int(count), float(pause or 0)


async def predict(text: str, run: Run) -> str:
    count, pause = _read(text)
    for number in range(count):
        run.output(number)
        run.progress((number + 1) / count, f"{number + 1} of {count}")
        await asyncio.sleep(pause)
    return run.id


def predict_in_thread(text: str, run: Run) -> str:
    count, pause = _read(text)
    for number in range(count):
        run.output(number)
        run.progress((number + 1) / count, f"{number + 1} of {count}")
        time.sleep(pause)
    return run.id


def attentive(text: str, run: Run) -> str:
    """Runs until it is canceled, and says so in the file that its input names."""
    while not run.canceled:
        time.sleep(0.01)
    Path(text).write_text(f"{run.deadline - time.time():.1f}")
    return "late"


def dies_once(text: str, run: Run) -> str:
    """Kills its worker in its first run, which the file that its input names remembers."""
    is_first = not Path(text).exists()
    run.output("first" if is_first else "second")
    time.sleep(0.2)
    if is_first:
        Path(text).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


async def optional(text: str, temperature: float = 0.7) -> float:
    """Its second parameter is its own."""
    return temperature


async def reports(text: str, run: Run) -> str:
    """Progress only."""
    count, pause = _read(text)
    for number in range(count):
        run.progress(number / count, f"{number} of {count}")
        await asyncio.sleep(pause)
    return "reported"
