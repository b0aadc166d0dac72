"""Shutdown hook: releases long polls and streams when the server is asked to stop."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from predictor.process import disown_forks


@contextmanager
def on_stop(call: Callable[[], None]) -> Iterator[None]:
    """Call `call` in this loop at SIGTERM and SIGINT, beside the server's own handlers.

    A server waits for open requests when it stops; those that wait for a prediction would delay it.
    Outside of the main thread, where no signal arrives, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        if callable(handler := before[signal.Signals(signum)]):
            handler(signum, frame)

    for signum in before:
        signal.signal(signum, on_signal)
    disown_forks()
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
