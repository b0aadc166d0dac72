"""Measures all systems in interleaved rounds, prints the tables, and draws the chart."""

import argparse
import platform
from pathlib import Path

import psutil

from tests.bench import growth, report
from tests.bench.systems import ASYNC, SYNC
from tests.bench.work import Results, one_round


def main() -> None:
    names = {system.name: None for system in (*ASYNC, *SYNC)}
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for each work in each round")
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--most-queued", type=int, default=10**6)
    parser.add_argument("--chart", type=Path, help="an SVG file to write")
    given = parser.parse_args()
    print(_machine())
    results, before = Results(), psutil.cpu_times()
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", flush=True)
        one_round(results, given.seconds, lambda system: system.name in given.only)
    if given.rounds:
        print(report.stolen(before, psutil.cpu_times()), "\n")
        print(report.table(results))
    if given.growth:
        growth.measure(given.seconds, given.most_queued)
    if given.chart:
        from tests.bench.chart import draw  # of matplotlib, which the measures do without

        draw(results, given.chart)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{platform.platform()}, Python {platform.python_version()}, "
        f"{psutil.cpu_count()} cores, {memory:.0f} GB"
    )


if __name__ == "__main__":
    main()
