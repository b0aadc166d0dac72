"""The works that are measured, and their figures."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from tests.bench import load
from tests.bench.systems import (
    ASYNC,
    PREDICTOR,
    SYNC,
    Running,
    System,
    running,
    time_to_ready,
)

#: Of a work and a system: its figures of each round, by their names.
Figures = dict[str, float]


@dataclass
class Results:
    """What was measured, round by round."""

    found: dict[tuple[str, str], list[Figures]] = field(default_factory=lambda: defaultdict(list))

    def add(self, work: str, system: System, **figures: float) -> None:
        self.found[work, system.name].append(figures)

    def systems(self, work: str) -> list[str]:
        return [system for measured, system in self.found if measured == work]

    def values(self, work: str, system: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self.found.get((work, system), [])]

    def median(self, work: str, system: str, figure: str) -> float:
        return median(self.values(work, system, figure))

    def spread(self, work: str, system: str, figure: str) -> float:
        """How far the rounds lie apart: half of the range, as a share of the median."""
        values = self.values(work, system, figure)
        return (max(values) - min(values)) / 2 / median(values)


NO_WORK, WAITING = "async, 64 clients, no work", "the same, waiting"
SLOW, SLOW_WAITING = "async, 64 clients, 50 ms", "50 ms, waiting"
ALONE, ALONE_WAITING = "one client", "one client, waiting"
SYNC_WORK, QUEUED, FINISHED = "sync, 32 connections, no work", "queued", "finished"
MEMORY, READY = "memory", "start"


def one_round(results: Results, seconds: float, chosen: Callable[[System], bool]) -> None:
    """Measure every chosen system once; `seconds` for each work."""
    for system in filter(chosen, ASYNC):
        with running(system) as system_running:
            _async(results, system, system_running, seconds)
        with running(system, seconds=0.05) as system_running:
            _slow(results, system, system_running, seconds)
    for system in filter(chosen, SYNC):
        with running(system, with_worker=False) as system_running:
            figures = measured(system_running, load.synchronous, 32, seconds)
            results.add(SYNC_WORK, system, **figures)
    if chosen(PREDICTOR):
        _store_memory(results, int(2000 * seconds))
        results.add(READY, PREDICTOR, seconds=time_to_ready())


def measured(
    system: Running, predict: load.Prediction, clients: int, seconds: float, text: str = "hello"
) -> Figures:
    """Predictions per second, CPU milliseconds of each, and the latencies in milliseconds."""
    asyncio.run(load.run(system.port, predict, clients, seconds / 4, text))
    before = system.cpu()
    seen = asyncio.run(load.run(system.port, predict, clients, seconds, text))
    cpu = 1000 * (system.cpu() - before) / len(seen.latencies)
    return {"rate": seen.rate, "cpu": cpu, "p50": 1000 * seen.at(0.5), "p99": 1000 * seen.at(0.99)}


def _async(results: Results, system: System, it: Running, seconds: float) -> None:
    results.add(NO_WORK, system, **measured(it, load.polling, 64, seconds))
    results.add(ALONE, system, **measured(it, load.polling, 1, seconds))
    if system is PREDICTOR:
        results.add(WAITING, system, **measured(it, load.waiting, 64, seconds))
        results.add(ALONE_WAITING, system, **measured(it, load.waiting, 1, seconds))
    results.add(MEMORY, system, api=it.memory(it.fronts), worker=it.memory(it.workers))


def _slow(results: Results, system: System, it: Running, seconds: float) -> None:
    results.add(SLOW, system, **measured(it, load.polling, 64, seconds))
    if system is PREDICTOR:
        results.add(SLOW_WAITING, system, **measured(it, load.waiting, 64, seconds))


def _store_memory(results: Results, count: int) -> None:
    """Bytes of the store for each prediction of 100 bytes that waits, and that has ended."""

    async def submit(it: Running, count: int) -> None:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(load.Connection, "127.0.0.1", it.port)
        for _ in range(count):
            await connection.ask(load.post("x" * 100, "Async-Mode: true"))
        transport.close()

    for work, with_worker in ((QUEUED, False), (FINISHED, True)):
        with running(PREDICTOR, with_worker=with_worker) as it:
            used = []
            for number in (count // 4, count):  # first what is needed once; then each
                asyncio.run(submit(it, number))
                if with_worker:
                    it.until_all_ended()
                used.append(it.store_bytes())
            results.add(work, PREDICTOR, bytes=(used[1] - used[0]) / count)
