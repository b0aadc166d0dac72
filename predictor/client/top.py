"""`predictor top`: what a service does, live at a terminal, else a line each interval."""

import asyncio
import contextlib
import os
import re
import sys
import termios
import time
import tty
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import to_json
from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from predictor.client.asynchronous import AsyncClient, json_object
from predictor.errors import Unauthorized, Unreachable
from predictor.prediction import timestamp

_MOST = 500  # intervals that are drawn: the width of a wide terminal
_COUNTED = ("rejected_total", "recovered_total", "webhook_attempts_total")
_RATE = re.compile("predictions_total_(.+)_per_second")
Row = dict[str, Any]


async def _look(client: AsyncClient) -> tuple[Row, Counter[str]]:
    """Health, version and model; and metrics, as sums: of all labels, and of an outcome or reason.

    Raises Unreachable and Unauthorized.
    """
    try:
        ready, metrics = await client.http.get("health/ready"), await client.http.get("metrics")
    except httpx.HTTPError as error:
        raise Unreachable(f"no answer from {client.address} ({error})") from None
    if metrics.status_code in {401, 403}:
        fix = "Set PREDICTOR_API_KEY, or PREDICTOR_PUBLIC=metrics where the API runs."
        raise Unauthorized(f"/metrics: {json_object(metrics.content).get('error', '')} {fix}")
    if metrics.status_code != 200 or "predictor_build_info{" not in metrics.text:
        text = f"/metrics: {metrics.status_code} {metrics.reason_phrase} (is that the api?)"
        raise Unreachable(text)
    body, sums = json_object(ready.content), Counter[str]()
    about = {"health": body.get("status") or body.get("error")}
    for family in text_string_to_metric_families(metrics.text):
        for name, labels, value, *_ in family.samples:
            key = name.removeprefix("predictor_")
            about |= labels if key == "build_info" else {}
            for label in {"", labels.get("outcome", ""), labels.get("reason", "")}:
                sums[f"{key}_{label}".rstrip("_")] += value  # type: ignore[assignment]
    return about, sums


def _changes(now: Counter[str], before: Counter[str], seconds: float) -> Row:
    """What is now, and what was since `before`; times in seconds."""
    row: Row = {}
    for key, value in now.items():
        new = max(0, value - before[key])
        if key.endswith("_sum"):
            count = max(0, now[f"{key[:-4]}_count"] - before[f"{key[:-4]}_count"])
            row[f"mean_{key[:-4]}"] = round(new / count, 4) if count else None
        elif not key.endswith(("_bucket", "_count", "_info")):
            row[key] = round(value, 3 if key.endswith("_seconds") else None)
            if key.startswith("predictions_total"):
                row[f"{key}_per_second"] = round(new / seconds, 2)
    return row


async def _rows(client: AsyncClient, interval: float) -> AsyncIterator[Row]:
    """A row now, and after each interval; if there is no answer, with an `error`."""
    before, at = None, 0.0
    while True:
        began, row = time.monotonic(), {"time": timestamp(time.time())}
        try:
            about, now = await _look(client)
            row |= about | _changes(now, before or now, began - at)
            before, at = now, began
        except (Unreachable, Unauthorized) as error:
            row["error"] = str(error)
        yield row
        await asyncio.sleep(began + interval - time.monotonic())


async def run(
    client: AsyncClient, interval: float, write: Callable[[str], None], *, is_json: bool
) -> None:
    """At a terminal, until q is typed; else `write` a line after each interval, while it can.

    Raises Unreachable and Unauthorized at the start, unless at a terminal.
    """
    rows, is_terminal = _rows(client, interval), sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal and os.environ.get("TERM") != "dumb":
        await _show(rows, client.address)
        return
    await _look(client)  # raises what is wrong at the start
    await anext(rows)  # compares with nothing
    async for row in rows:
        pairs = (f"{key}={to_json(value).decode()}" for key, value in row.items())
        write(to_json(row).decode() if is_json else " ".join(pairs))


async def _show(rows: AsyncIterator[Row], address: str) -> None:
    shown, before, end = deque[Row](maxlen=_MOST), termios.tcgetattr(0), asyncio.timeout(None)
    tty.setcbreak(0)  # keys come one by one, and are not shown
    loop = asyncio.get_running_loop()

    def read_key() -> None:
        key = b""
        with contextlib.suppress(OSError):  # the terminal is gone
            key = os.read(0, 1)
        if key in b"qQ":  # or there is none any more
            loop.remove_reader(0)
            end.reschedule(0)

    loop.add_reader(0, read_key)
    try:
        with contextlib.suppress(TimeoutError), Live(screen=True) as live:
            async with end:
                async for row in rows:
                    shown.extend([] if "error" in row else [row])
                    view = _view(shown, address, row.get("error", ""))
                    live.update(view, refresh=True)
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)


class _Bars(NamedTuple):
    values: list[float]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The last values, as many as there is room for."""
        shown = self.values[-options.max_width :]
        most = max(shown, default=0) or 1
        yield Text("".join("▁▂▃▄▅▆▇█"[round(7 * value / most)] for value in shown), "cyan")


def _view(rows: deque[Row], address: str, problem: str) -> Group:
    if not rows:
        return Group(Text(address, "bold"), Text(problem, "red"), "q: quit")
    row, table = rows[-1], Table.grid("", "", "", padding=(0, 2), expand=True)
    table.columns[1].justify = "right"
    table.add_column(ratio=1, no_wrap=True)
    rates = [(_RATE.fullmatch(key), value) for key, value in row.items() if value]
    outcomes = ", ".join(f"{value:g} {match[1]}" for match, value in rates if match)
    for name, key, layout, detail in (
        ("queued", "queue_depth", "{:,}", f"oldest {row['queue_oldest_seconds']:.1f} s"),
        ("running", "running", "{:,}", f"of {row['slots']} slots, {row['workers']} workers"),
        ("ended", "predictions_total_per_second", "{:,.1f}/s", outcomes),
        ("mean wait", "mean_queue_wait_seconds", "{:,.3f} s", ""),
        ("mean run", "mean_run_seconds", "{:,.3f} s", ""),
    ):
        value = "-" if row[key] is None else layout.format(row[key])
        bars = _Bars([each[key] or 0 for each in rows])
        table.add_row(Text(name, "bold"), value, detail, bars)
    about = f"{address}  predictor {row['version']}  {row['model']} {row['model_version']}"
    state = Text(problem or row["health"], "red" if problem else "green")
    kinds = [key for key in row if key.startswith(_COUNTED) and row[key]]
    counted = ", ".join(f"{key.replace('_total', '')} {row[key]}" for key in kinds)
    since = Text(f"in total: {counted or 'nothing rejected or recovered'}".replace("_", " "))
    return Group(Text(about, "bold"), state, "", table, "", since, "q: quit")
