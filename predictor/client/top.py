"""`predictor top`: what a service does, live at a terminal, else a line each interval."""

import asyncio
import contextlib
import os
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

from predictor.client.asynchronous import AsyncClient
from predictor.client.responses import json_object
from predictor.errors import PredictorError, Unauthorized, Unreachable
from predictor.prediction import timestamp

_MOST = 500  # intervals that are drawn: the width of a wide terminal
_COUNTED = ("rejected_total", "recovered_total", "webhook_attempts_total")
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
        text = "set PREDICTOR_API_KEY, or PREDICTOR_PUBLIC=metrics where the API runs"
        raise Unauthorized(f"/metrics needs a key: {text}.")
    if metrics.status_code != 200 or "text/plain" not in metrics.headers.get("Content-Type", ""):
        raise Unreachable(f"/metrics: {metrics.status_code} {metrics.reason_phrase}")
    body, sums = json_object(ready.content), Counter[str]()
    about = {"health": body.get("status") or body.get("error")}
    for family in text_string_to_metric_families(metrics.text):
        for name, labels, value, *_ in family.samples:
            key = name.removeprefix("predictor_")
            about |= labels if key == "build_info" else {}
            for label in {"", labels.get("outcome", ""), labels.get("reason", "")}:
                sums[f"{key}_{label}".rstrip("_")] += value  # type: ignore[assignment]
    return about, sums


def _row(about: Row, now: Counter[str], before: Counter[str], seconds: float) -> Row:
    """What is now, and what was since `before`; times in seconds."""
    row = {"time": timestamp(time.time()), **about}
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


async def _rows(client: AsyncClient, interval: float) -> AsyncIterator[Row | PredictorError]:
    """A row now, and after each interval; or why there is none."""
    before, at = None, 0.0
    while True:
        began = time.monotonic()
        try:
            about, now = await _look(client)
        except (Unreachable, Unauthorized) as error:
            yield error
        else:
            yield _row(about, now, before or now, began - at)
            before, at = now, began
        await asyncio.sleep(began + interval - time.monotonic())


async def run(
    client: AsyncClient, interval: float, write: Callable[[str], None], *, is_json: bool
) -> int:
    """At a terminal, until q is typed; else `write` a line after each interval, while it can.

    Raises Unreachable and Unauthorized at the start, unless at a terminal.
    """
    rows, is_first = deque[Row](maxlen=_MOST), True
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        with _ends_by_q(), Live(screen=True) as live:
            async for row in _rows(client, interval):
                problem = str(row) if isinstance(row, PredictorError) else ""
                rows.extend([row] if isinstance(row, dict) else [])
                live.update(_view(rows, client.address, problem), refresh=True)
        return 0
    async for row in _rows(client, interval):
        if is_first and isinstance(row, PredictorError):
            raise row
        line = row if isinstance(row, dict) else {"time": timestamp(time.time()), "error": str(row)}
        pairs = (f"{key}={to_json(value).decode()}" for key, value in line.items())
        if not is_first:
            write(to_json(line).decode() if is_json else " ".join(pairs))
        is_first = False
    return 0


@contextlib.contextmanager
def _ends_by_q() -> Iterator[None]:
    if not (task := asyncio.current_task()) or not sys.stdin.isatty():
        yield
        return
    before, loop = termios.tcgetattr(0), asyncio.get_running_loop()
    tty.setcbreak(0)  # keys come one by one, and are not shown
    loop.add_reader(0, lambda: os.read(0, 1) in b"qQ" and task.cancel("q"))
    try:
        yield
    except asyncio.CancelledError as error:
        if error.args != ("q",):  # Ctrl-C
            raise
    finally:
        loop.remove_reader(0)
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
    ended, rate = "predictions_total", "_per_second"
    rates = [key for key in row if key.startswith(f"{ended}_") and key.endswith(rate) and row[key]]
    outcomes = [f"{row[key]:g} {key[len(ended) + 1 : -len(rate)]}" for key in rates]
    for name, key, layout, detail in (
        ("queued", "queue_depth", "{:,}", f"oldest {row['queue_oldest_seconds']:.1f} s"),
        ("running", "running", "{:,}", f"of {row['slots']} slots, {row['workers']} workers"),
        ("ended", ended + rate, "{:,.1f}/s", ", ".join(outcomes[1:])),
        ("mean wait", "mean_queue_wait_seconds", "{:,.3f} s", ""),
        ("mean run", "mean_run_seconds", "{:,.3f} s", ""),
    ):
        value = "-" if row[key] is None else layout.format(row[key])
        bars = _Bars([each[key] or 0 for each in rows])
        table.add_row(Text(name, "bold"), value, detail, bars)
    about = f"{address}  predictor {row['version']}  {row['model']} {row['model_version']}"
    state = Text(problem or row["health"], "red" if problem else "green")
    counted = [
        f"{k.replace('_total', '').replace('_', ' ')} {row[k]}"
        for k in row
        if k in _COUNTED or (k.startswith(_COUNTED) and row[k])
    ]
    return Group(
        Text(about, "bold"),
        state,
        "",
        table,
        "",
        Text(f"in total: {', '.join(counted)}"),
        "q: quit",
    )
