# ruff: noqa: E402 (imports that take long come second)
"""Runs a model for the parent process: `python -m predictor.model.child CHANNEL`.

CHANNEL is the descriptor of a socket. Standard input is one that only closes, with the parent.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import traceback


def _tie_to_parent() -> None:
    """Let the kernel kill this process group when the parent ends, whatever the model does.

    Stop signals are left to the parent: a whole service gets them, and it drains.
    """
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if hasattr(fcntl, "F_SETSIG"):  # elsewhere, the end of the channel must do
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


if __name__ == "__main__":
    _tie_to_parent()  # first of all: what follows takes long

import uvloop
from pydantic_core import from_json, to_json

from predictor.config import Config
from predictor.errors import Canceled, ConfigError, ModelFailed, PredictionError
from predictor.logs import about
from predictor.model.frames import PART, Kind, frame, read
from predictor.model.loading import configured_model, start_model
from predictor.model.model import Model
from predictor.model.run import Run
from predictor.prediction import EventKind, Json, PredictionId, encode, splice
from predictor.process import on_stop, start_logging

_TRACE = 20_000  # characters of a traceback that are sent


class _Child:
    def __init__(self, channel: socket.socket, model: Model, max_result: int) -> None:
        self._channel, self._model, self._max_result = channel, model, max_result
        self._run: Run | None = None
        self._lock, self._owner = threading.Lock(), os.getpid()

    async def serve(self, path: str) -> None:
        """Run one prediction after the other until the channel is closed. Raises ConfigError."""
        await start_model(path, self._model)
        reader, _ = await asyncio.open_unix_connection(sock=self._channel.dup(), limit=PART)
        self._say(None, Kind.READY, b"")
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, body = await read(reader, sys.maxsize)
                if kind is Kind.RUN:
                    self._begin(*body.partition(b"\n")[::2])
                elif self._run:
                    self._run.canceled = True
                    self._task.cancel()
        if self._run:
            os.killpg(0, signal.SIGKILL)

    def _begin(self, head: bytes, value: bytes) -> None:
        def emit(kind: EventKind, data: Json) -> None:
            self._say(run, Kind[kind.name], data)

        id_, deadline, ids = from_json(head)
        about.set(ids)
        run = self._run = Run(PredictionId(id_), deadline, emit, self._max_result)
        call = self._batch if self._model.signature.batching else self._model.way.call
        self._task = asyncio.ensure_future(call(Json(value), run))
        self._answering = asyncio.ensure_future(self._answer(run))

    async def _batch(self, values: Json, run: Run) -> Json:
        outcomes = await self._model.way.call_batch([*map(encode, from_json(values))], run)
        written = [
            splice(result=each)
            if isinstance(each, bytes)
            else encode({"code": each.code, "message": str(each)})
            for each in outcomes
        ]
        return Json(b"[%b]" % b",".join(written))

    async def _answer(self, run: Run) -> None:
        try:
            kind, body = Kind.RESULT, bytes(await self._task)
        except asyncio.CancelledError:
            error_code = Canceled.code if run.canceled else ModelFailed.code  # by the model itself
            kind, body = Kind.ERROR, to_json([error_code, "", ""])
        except Exception as error:
            told = error if isinstance(error, PredictionError) else ModelFailed()
            cause = error.__cause__ if told is error else error
            text = "".join(traceback.format_exception(cause)) if cause else ""
            trace = text[-_TRACE:].encode(errors="replace").decode()
            kind, body = Kind.ERROR, to_json([told.code, str(told), trace])
        run.canceled = True
        while self._model.abandoned:  # noqa: ASYNC110 (until the thread has ended)
            await asyncio.sleep(0.002)
        self._say(run, kind, body)

    def _say(self, run: Run | None, kind: Kind, body: bytes) -> None:
        """Send it in the thread that says it: a model may hold up the loop."""
        with self._lock:
            # Not what a thread says that an earlier prediction has left behind, nor a fork.
            if self._run is run and os.getpid() == self._owner:
                self._run = run if kind in {Kind.PROGRESS, Kind.OUTPUT} else None
                self._channel.sendall(frame(kind, body))


def main() -> None:
    on_stop(lambda: None)  # what the model forks can be terminated
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    channel.settimeout(10**6)  # unlike None, it leaves the descriptor non-blocking for the loop
    start_logging(config := Config(), prints=True)
    try:
        model = configured_model(config)
        uvloop.run(_Child(channel, model, config.max_result).serve(config.model))
    except ConfigError as error:
        channel.sendall(frame(Kind.REFUSED, str(error).encode()))


if __name__ == "__main__":
    main()
