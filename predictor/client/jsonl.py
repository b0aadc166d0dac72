"""`predict --jsonl`: one prediction for each line of JSON, in order; can be resumed."""

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

from predictor.client.asynchronous import AsyncClient, Body, json_object
from predictor.errors import PredictorError, RequestError
from predictor.process import call_in_thread

_AHEAD = 4  # lines that are read ahead, for each concurrent one
_STOPS = {401, 403, 429, 503}  # the next line would be refused, too
_Write = Callable[[str], object]


class Results(NamedTuple):
    write: _Write
    run: str  # the idempotency keys derive from it
    kept: int = 0  # number of results of earlier runs
    failed: int = 0  # number of errors among them


def open_lines(name: str) -> tuple[Iterator[Body], int | None]:
    """The lines of a file (-: standard input), `{"input": …}` or `{"error": …}`, and their number.

    Raises RequestError for a file with a line that cannot be used. A pipe, which can be read only
    once, is not checked, and its number is None.
    """
    if name == "-" or not S_ISREG(Path(name).stat().st_mode):
        return _read(name), None
    count = 0
    for line in _read(name):
        count += 1
        if "error" in line:
            raise RequestError(f"{name}: {line['error']}")
    return _read(name), count


def _read(name: str) -> Iterator[Body]:
    # Closed only here: closing a file that a thread reads would block.
    with open(0 if name == "-" else name, "rb", closefd=name != "-") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield {"input": _input(line)}
                except ValueError as error:
                    reason = str(error).replace(" at line 1 ", " at ")
                    yield {"error": f"line {number}: {reason}"}


def _input(line: bytes) -> Any:
    value = from_json(line, allow_inf_nan=False)
    if isinstance(value, dict) and value.keys() == {"input"}:
        return value["input"]
    if isinstance(value, str):
        return value
    raise ValueError('neither {"input": …} nor a JSON string')


@contextlib.contextmanager
def open_results(name: str | None, lines: Iterator[Body], write: _Write) -> Iterator[Results]:
    """A file of results, or `write` without one; `lines` that have a result are skipped.

    The id of the run is in a file beside it until the results are complete.
    """
    if not name:
        yield Results(write, uuid.uuid4().hex)
        return
    path = Path(name)
    sidecar, is_old = path.with_name(f"{path.name}.run"), path.exists()
    if is_old and not path.is_file():
        raise RequestError(f"{path}: --output must name a regular file")
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"{path}: another run writes it") from None
        run = sidecar.read_text() if is_old and sidecar.exists() else ""
        if not run and file.tell():
            raise RequestError(f"{path} exists, and is not of an unfinished run: name another file")
        if not run:
            run = uuid.uuid4().hex
            sidecar.write_text(run)
        yield Results(partial(print, file=file, flush=True), run, *_skip_done(path, lines))
        os.fsync(file.fileno())
    sidecar.unlink()


def _skip_done(path: Path, lines: Iterator[Body]) -> tuple[int, int]:
    """Cut off an incomplete result; return the numbers of results, and of errors among them."""
    kept = failed = end = 0
    with path.open("r+b") as file:
        for result in file:
            if result.endswith(b"\n"):
                line, body = next(lines, {"error": None}), json_object(result)
                kept, failed, end = kept + 1, failed + ("error" in body), end + len(result)
                if body.get("input") != line.get("input"):
                    raise RequestError(f"{path}: line {kept} is the result of another input")
        file.truncate(end)
    return kept, failed


async def predict_lines(
    lines: Iterator[Body],
    to: Results,
    limit: int,
    on_result: Callable[[], object],
    client: AsyncClient,
) -> int:
    """Write the result of each line, in order, `limit` at once; return the number of errors."""
    slots = asyncio.Semaphore(limit)
    tasks: asyncio.Queue[asyncio.Task[Body] | None] = asyncio.Queue(_AHEAD * limit)
    failed = to.failed

    async def read() -> None:
        number = to.kept
        # In a thread: Ctrl-C must end this even while a pipe is silent.
        while line := await call_in_thread(lambda: next(lines, None)):
            number += 1
            key = hashlib.sha256(f"{to.run} {number} {line}".encode()).hexdigest()
            await tasks.put(group.create_task(_predict(client, line, key, slots)))
        await tasks.put(None)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while task := await tasks.get():
                result = await task
                to.write(to_json(result).decode())
                failed += "error" in result
                on_result()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return failed


async def _predict(client: AsyncClient, line: Body, key: str, slots: asyncio.Semaphore) -> Body:
    if "error" in line:
        return line
    id_: Body = {}
    async with slots:
        try:
            prediction = await client.submit(line["input"], idempotency_key=key)
            id_ = {"prediction_id": prediction.id}
            return line | {"result": await prediction.wait()}
        except PredictorError as error:
            if error.status in _STOPS:
                raise
            return line | {"error": str(error)} | id_
