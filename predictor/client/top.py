"""`predictor top`: what a service does, live at a terminal, else a line each interval."""

import asyncio
import contextlib
import os
import sys
import termios
import time
import tty
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import to_json
from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from predictor.client.api import Api, json_object
from predictor.errors import Unauthorized, Unreachable
from predictor.prediction import timestamp

_MOST = 500  # intervals that are drawn: the width of a wide terminal
_GAUGES = ("queue_depth", "running", "slots", "workers")
_TOTALS = ("rejected", "recovered", "webhook_attempts")
Row = dict[str, Any]


class _Sample(NamedTuple):
    at: float
    about: dict[str, str]  # health, version and model
    sums: dict[str, float]  # of each metric, and of it with an outcome or a reason

    def row(self, before: "_Sample") -> Row:
        """What is now, and what was since `before`; times in seconds."""
        now, seconds = self.sums, self.at - before.at or 1
        new = {key: max(0, now[key] - before.sums[key]) for key in list(now)}
        row: Row = {"time": timestamp(time.time()), **self.about}
        row |= {key: round(now[key]) for key in _GAUGES}
        row["queue_oldest_seconds"] = round(now["queue_oldest_seconds"], 3)
        for key in ("queue_wait_seconds", "run_seconds"):
            count = new.get(f"{key}_count")
            row[f"mean_{key}"] = round(new[f"{key}_sum"] / count, 4) if count else None
        for key in (key for key in new if key.startswith("predictions_total")):
            name = key.removeprefix("predictions_total").lstrip("_") or "ended"
            row[f"{name}_per_second"] = round(new[key] / seconds, 2)
        totals = [key for key in now if key.startswith(_TOTALS)]
        return row | {key.replace("_total", ""): round(now[key]) for key in totals}


async def _look(api: Api) -> _Sample:
    """Raises Unreachable and Unauthorized."""
    ready, metrics = await api.look("/health/ready"), await api.look("/metrics")
    if metrics.status_code in {401, 403}:
        text = "set PREDICTOR_API_KEY, or PREDICTOR_PUBLIC=metrics where the API runs"
        raise Unauthorized(f"/metrics needs a key: {text}.")
    if metrics.status_code != 200 or "text/plain" not in metrics.headers.get("Content-Type", ""):
        raise Unreachable(f"/metrics: {metrics.status_code} {metrics.reason_phrase}")
    body, sums = json_object(ready.content), defaultdict[str, float](float)
    about = {"health": str(body.get("status") or body.get("error"))}
    for family in text_string_to_metric_families(metrics.text):
        for name, labels, value, *_ in family.samples:
            key = name.removeprefix("predictor_")
            about |= labels if key == "build_info" else {}
            for label in {"", labels.get("outcome", ""), labels.get("reason", "")}:
                sums[f"{key}_{label}".rstrip("_")] += value
    return _Sample(time.monotonic(), about, sums)


async def _rows(api: Api, interval: float) -> AsyncIterator[tuple[Row, Exception | None]]:
    """A row now, and after each interval; or why there is none."""
    before = None
    while True:
        next_at = time.monotonic() + interval
        try:
            sample = await _look(api)
        except (Unreachable, Unauthorized) as error:
            yield {"time": timestamp(time.time()), "error": str(error)}, error
        else:
            yield sample.row(before or sample), None
            before = sample
        await asyncio.sleep(next_at - time.monotonic())


async def run(api: Api, interval: float, write: Callable[[str], None], *, is_json: bool) -> int:
    """At a terminal, until q is typed; else `write` a line after each interval, while it can.

    Raises Unreachable and Unauthorized at the start, unless at a terminal.
    """
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        rows = deque[Row](maxlen=_MOST)
        with _ends_by_q(), Live(screen=True) as live:
            async for row, error in _rows(api, interval):
                rows.extend([] if error else [row])
                live.update(_view(rows, api.address, str(error or "")), refresh=True)
        return 0
    is_first = True
    async for row, error in _rows(api, interval):
        if is_first and error:
            raise error
        if not is_first:
            pairs = (f"{key}={to_json(value).decode()}" for key, value in row.items())
            write(to_json(row).decode() if is_json else " ".join(pairs))
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
    """The last values, as many as there is room for."""

    values: list[float]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        shown = self.values[-options.max_width :]
        most = max(shown, default=0) or 1
        yield Text("".join("▁▂▃▄▅▆▇█"[round(7 * value / most)] for value in shown), "cyan")


def _view(rows: deque[Row], address: str, problem: str) -> Group:
    if not rows:
        return Group(Text(address, "bold"), Text(problem, "red"), "q: quit")
    row, table = rows[-1], Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_column(ratio=1, no_wrap=True)
    rates = [key for key in row if key.endswith("_per_second") and row[key]]
    outcomes = ", ".join(f"{row[key]:g} {key.removesuffix('_per_second')}" for key in rates[1:])
    for name, key, layout, detail in (
        ("queued", "queue_depth", "{:,}", f"oldest {row['queue_oldest_seconds']:.1f} s"),
        ("running", "running", "{:,}", f"of {row['slots']} slots, {row['workers']} workers"),
        ("ended", "ended_per_second", "{:,.1f}/s", outcomes),
        ("mean wait", "mean_queue_wait_seconds", "{:,.3f} s", ""),
        ("mean run", "mean_run_seconds", "{:,.3f} s", ""),
    ):
        value = "-" if row[key] is None else layout.format(row[key])
        table.add_row(name, value, detail, _Bars([each[key] or 0 for each in rows]))
    about = f"{address}  predictor {row['version']}  {row['model']} {row['model_version']}"
    state = Text(problem or row["health"], "red" if problem else "green")
    totals = [key for key in row if key in _TOTALS or (key.startswith(_TOTALS) and row[key])]
    footer = ", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in totals)
    return Group(Text(about, "bold"), state, "", table, "", Text(f"in total: {footer}"), "q: quit")
