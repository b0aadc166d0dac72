"""The commands that ask an api: what they print, and their exit status."""

import asyncio
import logging
import math
import os
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from functools import partial
from io import TextIOWrapper
from typing import Any

from pydantic_core import to_json
from tqdm import tqdm

from predictor.client import jsonl
from predictor.client.api import Body, Client, Unreachable
from predictor.config import Config
from predictor.errors import PredictorError, RequestError, UnknownPrediction

_RETRY_FOR, _RETRY_MANY_FOR = 30.0, 120.0  # seconds: for one prediction, for many
_STATUS = {RequestError: 2, UnknownPrediction: 66, Unreachable: 69}  # others: 1


def run_command(options: Namespace, config: Config) -> int:
    level = "WARNING" if sys.stderr.isatty() else "CRITICAL"
    logging.basicConfig(format="predictor: %(message)s", level=level)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is
    try:
        if options.command == "predict":
            return _predict(options, config)
        return asyncio.run(_run(config, _RETRY_FOR, partial(_status_or_cancel, options)))
    except BrokenPipeError:
        # End as SIGPIPE would; what is flushed at exit is dropped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        _report(f"{error.filename or 'standard input or output'}: {error.strerror}")
        return 2
    except PredictorError as error:
        _report(str(error))
        return _STATUS.get(type(error), 1)


def _predict(options: Namespace, config: Config) -> int:
    if (options.text is None) == (options.jsonl is None):
        raise RequestError("give one text (-: standard input), or --jsonl FILE")
    if options.jsonl:
        return _predict_many(options, config)
    if options.output:
        raise RequestError("--output is for --jsonl")
    try:
        if options.text == "-":
            options.text = open(0, "rb", closefd=False).read().decode()  # noqa: SIM115
        options.text.encode()
    except UnicodeError as error:
        raise RequestError(f"the text is not UTF-8: {error}") from None
    return asyncio.run(_run(config, _RETRY_FOR, partial(_predict_one, options)))


async def _predict_one(options: Namespace, client: Client) -> int:
    if not options.is_async and not options.wait:
        body = await client.predict(options.text)
        return _print(body, body["result"], options)
    body = await client.submit(options.text)
    id_ = body["prediction_id"]
    return await _wait(client, id_, options) if options.wait else _print(body, id_, options)


async def _status_or_cancel(options: Namespace, client: Client) -> int:
    if options.command == "status" and options.wait:
        return await _wait(client, options.id, options)
    ask = client.cancel if options.command == "cancel" else client.status
    body = await ask(options.id)
    progress = body.get("progress")
    text = f"{progress['fraction']:.0%} {progress['message']}" if progress else None
    lines = [f"{k}: {v}" for k, v in (body | {"progress": text}).items() if v is not None]
    return _print(body, "\n".join(lines), options)


async def _wait(client: Client, id_: str, options: Namespace) -> int:
    """Print the result; until then show the progress, if standard error is a terminal."""
    hint = f"{id_} goes on; to wait for it: predictor status {id_} --wait"
    layout = "{desc} {percentage:3.0f}%|{bar}|"
    bar: tqdm[Any] = tqdm(total=1, bar_format=layout, leave=False, disable=None)

    def on_event(event: str, data: Any) -> None:
        if event in {"status", "progress"}:
            bar.n = data.get("fraction", 0)
            bar.set_description_str(data.get("status") or data["message"])

    try:
        with bar:
            async with asyncio.timeout(options.wait):
                body = await client.wait(id_, on_event)
    except TimeoutError:
        _report(f"not ended within {options.wait:g} s: {hint}")
        return 75
    except (asyncio.CancelledError, Unreachable):
        _report(hint)
        raise
    return _print(body, body["output"]["result"], options)


def _predict_many(options: Namespace, config: Config) -> int:
    lines, count = jsonl.open_lines(options.jsonl)
    try:
        with (
            jsonl.open_results(options.output, lines, _write) as to,
            tqdm(total=count, initial=to.kept, unit=" lines", disable=None) as bar,
        ):
            ask = partial(jsonl.predict_lines, lines, to, math.ceil(options.at_once), bar.update)
            return 1 if asyncio.run(_run(config, _RETRY_MANY_FOR, ask)) else 0
    except (KeyboardInterrupt, Unreachable):
        if options.output:
            _report("the same command goes on where this one has stopped")
        raise


async def _run(config: Config, retry_for: float, call: Callable[[Client], Awaitable[int]]) -> int:
    async with Client(config, retry_for) as client:
        return await call(client)


def _print(body: Body, short: Any, options: Namespace) -> int:
    is_text = isinstance(short, str) and not options.json
    _write(short if is_text else to_json(body if options.json else short).decode())
    return 0


def _write(line: str) -> None:
    with tqdm.external_write_mode():
        print(line, flush=True)  # noqa: T201


def _report(text: str) -> None:
    print("predictor:", *text.split(), file=sys.stderr, flush=True)  # noqa: T201 (on one line)
