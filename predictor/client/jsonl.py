"""Many predictions: a line of JSON for each, in and out, in order; what was stopped goes on."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from predictor.client.api import Body, Client, Refused, UnknownPrediction, json_object
from predictor.errors import PredictionError, PredictorError
from predictor.process import call_in_thread

#: Lines, for each that is asked for at once, that may have been read before the first is written.
_AHEAD = 4


class Unusable(PredictorError):
    """What was given cannot be used."""


class Output(NamedTuple):
    """Where the results go."""

    write: Callable[[str], object]
    #: what the keys of this run derive from
    run: str
    #: how many results are there already, and how many of them are errors
    kept: int = 0
    failed: int = 0


def open_lines(name: str) -> tuple[Iterator[Body], int | None]:
    """What a file of JSON lines (-: standard input) asks for, and how many lines that is.

    `{"input": …}` or, for a line that cannot be used, `{"error": …}`. A file that has such a line
    raises Unusable; what can be read only once is not looked at before: None.
    """
    count = None
    if name != "-" and S_ISREG(Path(name).stat().st_mode):
        count = 0
        for line in _read(name):
            count += 1
            if "error" in line:
                raise Unusable(f"{name}: {line['error']}")
    return _read(name), count


def _read(name: str) -> Iterator[Body]:
    # Closed here and nowhere else: to close what a thread hangs in would hang, too.
    with open(0 if name == "-" else name, "rb", closefd=name != "-") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield {"input": _input(from_json(line))}
                except ValueError as error:
                    reason = str(error).replace(" at line 1 ", " at ")
                    yield {"error": f"line {number}: {reason}"}


def _input(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"input"}:
        value = value["input"]
    if not isinstance(value, str):
        raise ValueError('neither {"input": "…"} nor a JSON string')  # noqa: TRY004 (as from_json)
    return value


@contextlib.contextmanager
def resumable(path: Path, lines: Iterator[Body]) -> Iterator[Output]:
    """A file of results; those of `lines` that have theirs are passed over.

    A file beside it has the id of the run, until all results are there.
    """
    sidecar, is_old = path.with_name(f"{path.name}.run"), path.exists()
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable(f"{path}: another run writes it") from None
        run = sidecar.read_text() if is_old and sidecar.exists() else ""
        if not run and file.tell():
            raise Unusable(f"{path} is complete: remove it, or name another --output")
        if not run:
            run = uuid.uuid4().hex
            sidecar.write_text(run)
        yield Output(partial(print, file=file, flush=True), run, *_pass_over(path, lines))
        os.fsync(file.fileno())
    sidecar.unlink()


def _pass_over(path: Path, lines: Iterator[Body]) -> tuple[int, int]:
    """Cut off what is torn; answers how many results are left, and how many of them are errors."""
    kept = failed = end = 0
    with path.open("r+b") as file:
        for result in file:
            if result.endswith(b"\n"):
                line, body = next(lines, {"error": None}), json_object(result)
                kept, failed, end = kept + 1, failed + ("error" in body), end + len(result)
                if body.get("input") != line.get("input"):
                    raise Unusable(f"{path}: line {kept} is the result of another input")
        file.truncate(end)
    return kept, failed


async def run(
    lines: Iterator[Body], output: Output, at_once: int, tell: Callable[[], object], client: Client
) -> int:
    """Write the result of each line, in order, and `tell` of each; answers how many are errors."""
    slots = asyncio.Semaphore(at_once)
    tasks: asyncio.Queue[asyncio.Task[Body] | None] = asyncio.Queue(_AHEAD * at_once)

    failed = output.failed

    async def read() -> None:
        number = output.kept
        # In a thread: Ctrl-C must end this even while a pipe is silent.
        while line := await call_in_thread(lambda: next(lines, None)):
            number += 1
            key = hashlib.sha256(f"{output.run} {number} {line}".encode()).hexdigest()
            await tasks.put(group.create_task(_answer(client, line, key, slots)))
        await tasks.put(None)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while task := await tasks.get():
                result = await task
                output.write(to_json(result).decode())
                failed += "error" in result
                tell()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return failed


async def _answer(client: Client, line: Body, key: str, slots: asyncio.Semaphore) -> Body:
    if "error" in line:
        return line
    id_: Body = {}
    async with slots:
        try:
            id_ = {"prediction_id": (await client.submit(line["input"], key))["prediction_id"]}
            body = await client.wait(id_["prediction_id"])
        except (PredictionError, Refused, UnknownPrediction) as error:
            return line | {"error": error.message} | id_
    return line | {"result": body["output"]["result"]}
