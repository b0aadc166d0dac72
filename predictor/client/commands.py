"""The commands that ask an api: what they print, and their exit status."""

import asyncio
import contextlib
import logging
import math
import sys
from argparse import Namespace
from functools import partial
from io import TextIOWrapper
from typing import Any

from pydantic_core import from_json, to_json
from tqdm import tqdm

from predictor.client import jsonl
from predictor.client.asynchronous import AsyncClient, AsyncPrediction
from predictor.config import Config
from predictor.errors import PredictionError, PredictorError, RequestError
from predictor.process import call_in_thread

_RETRY_FOR, _RETRY_MANY_FOR = 30.0, 120.0  # seconds: for one prediction, for many
_UNKNOWN = "No such prediction: never accepted, or no longer kept."
_STATUS = {404: 66, 429: 69, 503: 69}  # other refusals: 2, other errors: 1


def run_command(options: Namespace, config: Config) -> int:
    level = "WARNING" if sys.stderr.isatty() else "CRITICAL"
    logging.basicConfig(format="predictor: %(message)s", level=level)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is
    try:
        if options.command == "predict":
            _read_input(options)
        return asyncio.run(_ask(options, config))
    except BrokenPipeError:
        raise
    except OSError as error:
        names = {None: "standard input or output", "": "''"}
        _report(f"{names.get(error.filename, error.filename)}: {error.strerror}")
        return 2
    except (LookupError, TypeError, ValueError) as error:
        _report(f"the response has not the form of the api's ({error!r})")
        return 69
    except PredictorError as error:
        _report(_UNKNOWN if error.status == 404 else str(error))
        is_refused = error.status < 500 and not isinstance(error, PredictionError)
        return _STATUS.get(error.status, 2 if is_refused else 1)


def _read_input(options: Namespace) -> None:
    """Set `options.input`, unless the inputs are in a file. Raises RequestError."""
    if (options.text is None) == (options.jsonl is None):
        raise RequestError("give one text (-: standard input), or --jsonl FILE")
    if options.jsonl is not None:
        return
    if options.output:
        raise RequestError("--output is for --jsonl")
    try:
        if options.text == "-":
            options.text = open(0, "rb", closefd=False).read().decode()  # noqa: SIM115
        options.text.encode()
        options.input = options.text
        if options.input_json:
            options.input = from_json(options.text, allow_inf_nan=False)
    except UnicodeError as error:
        raise RequestError(f"the text is not UTF-8: {error}") from None
    except ValueError as error:
        raise RequestError(f"the text is not JSON: {error}") from None


async def _ask(options: Namespace, config: Config) -> int:
    ask = {"predict": _predict, "top": _top}.get(options.command, _status_or_cancel)
    retry_for = _RETRY_FOR
    if "jsonl" in options and options.jsonl is not None:
        ask, retry_for = _predict_lines, _RETRY_MANY_FOR
    url, key, timeout = str(config.url or config.local_url), config.api_key, config.timeout
    async with AsyncClient(url, api_key=key, timeout=timeout, retry_for=retry_for) as client:
        return await ask(options, client)


async def _predict(options: Namespace, client: AsyncClient) -> int:
    if not options.is_async and not options.wait:
        result = await client.predict(options.input)
        return _print({"input": options.input, "result": result}, result, options)
    prediction = await client.submit(options.input)
    if options.wait:
        return await _wait(prediction, options)
    message = "Request received. Processing asynchronously."
    return _print({"message": message, "prediction_id": prediction.id}, prediction.id, options)


async def _status_or_cancel(options: Namespace, client: AsyncClient) -> int:
    prediction = client.prediction(options.id)
    if options.command == "status" and options.wait:
        return await _wait(prediction, options)
    ask = prediction.cancel if options.command == "cancel" else prediction.status
    body = dict(await ask())
    progress: Any = body.get("progress")
    text = f"{progress['fraction']:.0%} {progress['message']}" if progress else None
    lines = [f"{k}: {v}" for k, v in (body | {"progress": text}).items() if v is not None]
    return _print(body, "\n".join(lines), options)


async def _wait(prediction: AsyncPrediction, options: Namespace) -> int:
    """Print the result, once there is one."""
    hint = f"{prediction.id} goes on; to wait for it: predictor status {prediction.id} --wait"
    try:
        output = await _awaited(prediction, options.wait)
    except TimeoutError:
        _report(f"not ended within {options.wait:g} s: {hint}")
        return 75
    except (asyncio.CancelledError, PredictorError) as error:
        if getattr(error, "status", 503) == 503:
            _report(hint)
        raise
    return _print({"prediction_id": prediction.id, "output": output}, output["result"], options)


async def _awaited(prediction: AsyncPrediction, timeout: float) -> dict[str, Any]:
    """The output. Does not depend on the events, which a proxy may hold back, or cut."""
    showing = asyncio.create_task(_show_progress(prediction))
    try:
        output = await prediction.output(timeout)
        await asyncio.wait([showing], timeout=0.5)
    finally:
        showing.cancel()
        await asyncio.wait([showing])  # the bar is gone before anything else is printed
    return output


async def _show_progress(prediction: AsyncPrediction) -> None:
    """Show the progress on standard error, if that is a terminal."""
    layout = "{desc} {percentage:3.0f}%|{bar}|"
    if not sys.stderr.isatty():
        return
    # Whatever ends the events, the output says why.
    with contextlib.suppress(Exception), tqdm(total=1, bar_format=layout, leave=False) as bar:
        async for kind, data, _ in prediction.events():
            if kind in {"status", "progress"}:
                bar.n = data.get("fraction", 0)
                bar.set_description_str(data.get("status") or data["message"])


async def _predict_lines(options: Namespace, client: AsyncClient) -> int:
    lines, count = await call_in_thread(partial(jsonl.open_lines, options.jsonl))
    try:
        with (
            jsonl.open_results(options.output, lines, _write) as to,
            tqdm(total=count, initial=to.kept, unit=" lines", disable=None) as bar,
        ):
            limit = math.ceil(options.at_once)
            return 1 if await jsonl.predict_lines(lines, to, limit, bar.update, client) else 0
    except (asyncio.CancelledError, PredictorError) as error:
        if options.output and type(error) is not RequestError:  # that of a file
            _report("the same command goes on where this one has stopped")
        raise


async def _top(options: Namespace, client: AsyncClient) -> int:
    from predictor.client import top  # with rich, which others do not need

    await top.run(client, options.interval, _write, is_json=options.json)
    return 0


def _print(body: dict[str, Any], short: Any, options: Namespace) -> int:
    is_text = isinstance(short, str) and not options.json
    _write(short if is_text else to_json(body if options.json else short).decode())
    return 0


def _write(line: str) -> None:
    with tqdm.external_write_mode():
        print(line, flush=True)  # noqa: T201


def _report(text: str) -> None:
    print("predictor:", *text.split(), file=sys.stderr, flush=True)  # noqa: T201 (on one line)
