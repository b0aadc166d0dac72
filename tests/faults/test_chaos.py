"""Everything at once, at random: nothing accepted is lost or done twice, all come to an end.

    uv run pytest tests/faults/test_chaos.py --chaos-seconds 60 --chaos-seed 7

The seed is printed; without one each run has another.
"""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from tests.faults.conftest import Farm
from tests.processes import Api, Process, eventually

LEASE = 2.0
DRAIN = 2.0
WORKERS = 4


@dataclass
class Run:
    """What happened."""

    accepted: dict[str, str] = field(default_factory=dict)
    first_seen: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    exits: list[tuple[int, float]] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


class Chaos:
    """Producers, workers, and what befalls them."""

    def __init__(self, farm: Farm, seed: int, predictions: int, seconds: float) -> None:
        self.farm = farm
        self.random = random.Random(seed)
        self.predictions = predictions
        self.seconds = seconds
        self.run = Run()
        self.stop = threading.Event()
        self.workers: list[Process] = [self._start_worker() for _ in range(WORKERS)]
        self.events: list[tuple[int, Callable[[], None]]] = [
            (4, self.kill_a_worker),
            (4, self.stop_a_worker),
            (3, self.freeze_a_worker),
            (6, self.cut_connections),
            (2, self.kill_the_store),
            (2, self.freeze_the_store),
        ]

    def produce(self, number: int, api: Api) -> None:
        """Submit at an even pace until all are accepted; a 503 is submitted again."""
        pace = self.seconds / (self.predictions / 2)
        with httpx.Client(base_url=api.client.base_url, timeout=10) as client:
            for count in range(self.predictions // 2):
                text = f"{'refuse' if count % 20 == 0 else 'echo'} {number}-{count}"
                while True:
                    answer = client.post(
                        "/predict", json={"input": text}, headers={"Async-Mode": "true"}
                    )
                    if answer.status_code == 202:
                        self.run.accepted[answer.json()["prediction_id"]] = text
                        break
                    assert answer.status_code == 503, answer.text
                    self.stop.wait(0.1)
                self.stop.wait(pace)

    def watch(self, api: Api) -> None:
        """Read results as they come: the first reading of each is what it must stay."""
        with httpx.Client(base_url=api.client.base_url, timeout=10) as client:
            while not self.stop.wait(0.05):
                for id_ in list(self.run.accepted)[-50:]:
                    answer = client.get(f"/predict/{id_}")
                    if answer.status_code in {200, 422, 500}:
                        self.run.first_seen.setdefault(id_, (answer.status_code, answer.content))

    def rage(self) -> None:
        """One event after another until the time is over."""
        deadline = time.monotonic() + self.seconds
        weights = [weight for weight, _ in self.events]
        while time.monotonic() < deadline:
            (_, event) = self.random.choices(self.events, weights)[0]
            self.run.events[event.__name__] += 1
            event()
            self._replace_the_dead()
            time.sleep(self.random.uniform(0.1, 0.8))

    def kill_a_worker(self) -> None:
        self._pop().kill()

    def stop_a_worker(self) -> None:
        worker = self._pop()
        began = time.monotonic()
        status = worker.stop(DRAIN + 5)
        self.run.exits.append((status, time.monotonic() - began))

    def freeze_a_worker(self) -> None:
        worker = self.random.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.2, 1.3) * LEASE)
        worker.signal(signal.SIGCONT)

    def cut_connections(self) -> None:
        self.farm.store.client.client_kill_filter(_type="normal", skipme=True)

    def kill_the_store(self) -> None:
        self.farm.store.kill()
        time.sleep(self.random.uniform(0.1, 1.5) * LEASE)
        self.farm.store.start()

    def freeze_the_store(self) -> None:
        self.farm.store.freeze()
        time.sleep(self.random.uniform(0.1, 1.5) * LEASE)
        self.farm.store.resume()

    def _pop(self) -> Process:
        """One that has started: before that, a process cannot know what a signal means."""
        worker = self.random.choice(self.workers)
        eventually(lambda: "worker ready" in worker.output, "a worker that has started", 30)
        self.workers.remove(worker)
        return worker

    def _start_worker(self) -> Process:
        return self.farm.processes.start_worker(
            model="tests.models.chaotic:predict",
            lease=LEASE,
            drain=DRAIN,
            max_tries=20,
            result_ttl=600,
        )

    def _replace_the_dead(self) -> None:
        for worker in list(self.workers):
            if not worker.is_running:
                self.run.unasked.append(worker.output)
                self.workers.remove(worker)
        while len(self.workers) < WORKERS:
            self.workers.append(self._start_worker())


@pytest.mark.timeout(900)
def test_row_33_chaos(farm: Farm, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--chaos-seconds")
    seed = request.config.getoption("--chaos-seed") or random.randrange(10**6)
    predictions = max(2000, int(seconds * 33)) if seconds >= 60 else int(seconds * 30)
    api = farm.api
    chaos = Chaos(farm, seed, predictions, seconds)
    producers = [threading.Thread(target=chaos.produce, args=(n, api)) for n in range(2)]
    watcher = threading.Thread(target=chaos.watch, args=(api,))
    for thread in (*producers, watcher):
        thread.start()
    try:
        chaos.rage()
        for thread in producers:
            thread.join(120)
        eventually(lambda: farm.store.waiting_and_running() == (0, 0), "an empty queue", 60)
    finally:
        chaos.stop.set()
        watcher.join(60)
    run = chaos.run
    print(
        f"\nchaos seed {seed}: {len(run.accepted)} accepted, {dict(run.events)}, exits {run.exits}"
    )
    _judge(run, farm, predictions)
    for worker in chaos.workers:
        assert worker.is_running, worker.output
        assert worker.stop() == 0


def _judge(run: Run, farm: Farm, predictions: int) -> None:
    assert len(run.accepted) == predictions
    assert not run.unasked, run.unasked[0]
    assert all(status == 0 and taken < DRAIN + 1 for status, taken in run.exits), run.exits
    for id_, text in run.accepted.items():
        answer = farm.api.read(id_)
        assert answer.status_code == (422 if text.startswith("refuse") else 200), answer.text
        if answer.status_code == 200:
            assert answer.json()["output"]["input"] == text
        seen = run.first_seen.get(id_)
        assert seen in {None, (answer.status_code, answer.content)}, "a result that changed"
    assert farm.store.leftovers() == set()
