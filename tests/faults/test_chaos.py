"""Everything at once, at random: nothing accepted is lost or done twice, all come to an end.

    uv run pytest tests/faults/test_chaos.py --chaos-seconds 60 --chaos-seed 7 -n 0 -s

The seed is printed; without one each run has another. What the machine does not allow (a disk to
fill needs root, a clock to set a C compiler) does not happen, and is printed, too.
"""

import contextlib
import math
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.faults.conftest import Farm
from tests.faults.surroundings import Clock, Disk, Link, Unavailable, small_disk
from tests.processes import UNMEASURED, Api, Process, eventually

LEASE = 2.0
DRAIN = 2.0
WORKERS, PRODUCERS = 4, 2
HOUR = 3600.0

#: Of so many predictions, the first ones are refused, take long, fork.
KINDS = ("refuse", "long", "fork", "fork", *["echo"] * 16)


@dataclass
class Run:
    """What happened."""

    accepted: dict[str, str] = field(default_factory=dict)
    first_seen: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    exits: list[tuple[int, float]] = field(default_factory=list)
    #: what those said that failed, or took too long, when they were stopped
    bad_exits: list[str] = field(default_factory=list)
    #: what those said that ended though nobody stopped them
    unasked: list[str] = field(default_factory=list)
    #: accepted, and then unknown
    unknown: list[str] = field(default_factory=list)


@dataclass
class Ground:
    """What the store stands on; None: this machine does not allow it."""

    disk: Disk | None = None
    clock: Clock | None = None


class Chaos:
    """Producers, workers, and what befalls them."""

    def __init__(self, farm: Farm, ground: Ground, links: list[Link], seed: int) -> None:
        """`links`: the api's, then some that workers share."""
        self.farm = farm
        self.ground = ground
        self.links = links
        self.random = random.Random(seed)
        self.run = Run()
        self.stop = threading.Event()
        self.workers: list[Process] = [self._start_worker() for _ in range(WORKERS)]
        #: what may happen while the disk is full: the store's own death would lose what it holds
        self.lesser: list[tuple[int, Callable[[], None]]] = [
            (4, self.kill_a_worker),
            (4, self.stop_a_worker),
            (3, self.freeze_a_worker),
            (6, self.cut_connections),
            (3, self.slow_a_link),
            (3, self.stall_a_link),
        ]
        if ground.clock:
            self.lesser += [(2, self.step_the_clock), (2, self.step_the_clock_by_an_hour)]
        self.events = [*self.lesser, (2, self.kill_the_store), (2, self.freeze_the_store)]
        if ground.disk:
            self.events.append((3, self.fill_the_disk))

    def produce(self, number: int, api: Api, predictions: int, seconds: float) -> None:
        """Submit at an even pace until all are accepted; a 503 is submitted again.

        Every other has a key: its repetitions are one prediction.
        """
        with httpx.Client(base_url=api.client.base_url, timeout=10) as client:
            for count in range(number, predictions, PRODUCERS):
                text = f"{KINDS[count % len(KINDS)]} {count}"
                headers = {"Async-Mode": "true"}
                if is_keyed(count):
                    headers["Idempotency-Key"] = f"key-{count}"
                while True:
                    answer = client.post("/predict", json={"input": text}, headers=headers)
                    if answer.status_code == 202:
                        self.run.accepted[answer.json()["prediction_id"]] = text
                        break
                    assert answer.status_code == 503, answer.text
                    self.stop.wait(0.1)
                self.stop.wait(seconds * PRODUCERS / predictions)

    def watch(self, api: Api) -> None:
        """Read results as they come: the first reading of each is what it must stay."""
        with httpx.Client(base_url=api.client.base_url, timeout=10) as client:
            while not self.stop.wait(0.05):
                for id_ in list(self.run.accepted)[-50:]:
                    answer = client.get(f"/predict/{id_}")
                    if answer.status_code == 404:
                        self.run.unknown.append(id_)
                    elif answer.status_code not in {202, 503}:
                        self.run.first_seen.setdefault(id_, (answer.status_code, answer.content))

    def rage(self, seconds: float) -> None:
        """One event after another until the time is over; then slow links are as they were."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._one_of(self.events)
        for link in self.links:
            link.pace = math.inf

    def _one_of(self, events: list[tuple[int, Callable[[], None]]]) -> None:
        (_, event) = self.random.choices(events, [weight for weight, _ in events])[0]
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
        taken = time.monotonic() - began
        self.run.exits.append((status, round(taken, 2)))
        if status or taken > DRAIN + 2:  # on a machine that has much to do
            self.run.bad_exits.append(worker.output)

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

    def slow_a_link(self) -> None:
        """Until it gets another pace; a claim and its answer are about 1 kB."""
        self.random.choice(self.links).pace = self.random.choice(
            [math.inf, 10**5, 3 * 10**4, 10**4]
        )

    def stall_a_link(self) -> None:
        link = self.random.choice(self.links)
        there, back = self.random.choice([(True, True), (True, False), (False, True)])
        link.stall(there=there, back=back)
        time.sleep(self.random.uniform(0.1, 2) * LEASE)
        if self.random.random() < 0.5:
            link.cut()
        link.resume()

    def step_the_clock(self) -> None:
        self._step(self.random.uniform(0.3, 10))

    def step_the_clock_by_an_hour(self) -> None:
        self._step(HOUR)

    def _step(self, seconds: float) -> None:
        """One way or the other, but never far from the right time."""
        assert self.ground.clock
        ahead = self.ground.clock.ahead
        is_back = ahead > HOUR or (ahead > -HOUR and self.random.random() < 0.5)
        self.ground.clock.step(-seconds if is_back else seconds)

    def fill_the_disk(self) -> None:
        """For a while, in which other things happen, too; then the store takes writes again."""
        assert self.ground.disk
        self.ground.disk.fill()
        time.sleep(self.random.uniform(0.2, 1) * LEASE)
        if self.random.random() < 0.7:
            self._one_of(self.lesser)
        self.ground.disk.fill()
        self.run.events["of which full"] += not self._can_write()
        self.ground.disk.free()
        eventually(self._can_write, "a store that writes to its disk again")

    def _can_write(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            info: Any = self.farm.store.client.info("persistence")
            return bool(info["aof_last_write_status"] == "ok")
        return False

    def _pop(self) -> Process:
        """One that has started: before that, a process cannot know what a signal means."""
        worker = self.random.choice(self.workers)
        eventually(lambda: "worker ready" in worker.output, "a worker that has started", 30)
        self.workers.remove(worker)
        return worker

    def _start_worker(self) -> Process:
        urls = [self.farm.store.url, *(link.url for link in self.links[1:])]
        return self.farm.processes.start_worker(
            model="tests.models.chaotic:predict",
            redis_url=self.random.choice(urls),
            lease=LEASE,
            drain=DRAIN,
            max_tries=20,
            result_ttl=24 * HOUR,
            **UNMEASURED,
        )

    def _replace_the_dead(self) -> None:
        for worker in list(self.workers):
            if not worker.is_running:
                self.run.unasked.append(worker.output)
                self.workers.remove(worker)
        while len(self.workers) < WORKERS:
            self.workers.append(self._start_worker())


def is_keyed(count: int) -> bool:
    """Whether the prediction with this number has an idempotency key."""
    return count // len(KINDS) % 2 == 0


@pytest.fixture
def ground() -> Ground:
    return Ground()


@pytest.fixture
def store_folder(ground: Ground) -> Iterator[Path]:
    """A disk of 16 MB, where that may be."""
    with tempfile.TemporaryDirectory(prefix="predictor-") as name, contextlib.ExitStack() as stack:
        try:
            ground.disk = stack.enter_context(small_disk(Path(name), 16))
        except Unavailable as why:
            print(f"the disk does not fill up: {why}")
        yield Path(name)


@pytest.fixture
def store_clock(ground: Ground, tmp_path: Path) -> Clock | None:
    try:
        ground.clock = Clock(tmp_path)
    except Unavailable as why:
        print(f"the clock does not step: {why}")
    return ground.clock


@pytest.fixture
def links(farm: Farm, tmp_path: Path) -> Iterator[list[Link]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Link(farm.store.url, tmp_path / f"link-{number}"))
            for number in range(3)
        ]


@pytest.mark.timeout(900)
def test_row_33_chaos(
    farm: Farm, ground: Ground, links: list[Link], request: pytest.FixtureRequest
) -> None:
    seconds = request.config.getoption("--chaos-seconds")
    seed = request.config.getoption("--chaos-seed") or random.randrange(10**6)
    predictions = max(2000, int(seconds * 33)) if seconds >= 60 else int(seconds * 30)
    api = farm.processes.api(mock_delay=0, result_ttl=24 * HOUR, redis_url=links[0].url)
    chaos = Chaos(farm, ground, links, seed)
    producers = [
        threading.Thread(target=chaos.produce, args=(number, api, predictions, seconds))
        for number in range(PRODUCERS)
    ]
    watcher = threading.Thread(target=chaos.watch, args=(api,))
    for thread in (*producers, watcher):
        thread.start()
    try:
        chaos.rage(seconds)
        for thread in producers:
            thread.join(120)
        eventually(lambda: farm.store.waiting_and_running() == (0, 0), "an empty queue", 60)
    finally:
        chaos.stop.set()
        watcher.join(60)
        run = chaos.run
        print(
            f"\nchaos seed {seed}: {len(run.accepted)} accepted, {dict(run.events)}, "
            f"exits {run.exits}"
        )
    _judge(run, farm, api, predictions)
    for worker in chaos.workers:
        assert worker.is_running, worker.output
        assert worker.stop() == 0


def _judge(run: Run, farm: Farm, api: Api, predictions: int) -> None:
    assert len(run.accepted) == predictions
    assert not run.unknown
    assert not run.unasked, run.unasked[0]
    assert not run.bad_exits, run.bad_exits[0]
    for id_, text in run.accepted.items():
        answer = api.read(id_)
        assert answer.status_code == (422 if text.startswith("refuse") else 200), answer.text
        if answer.status_code == 200:
            assert answer.json()["output"]["input"] == text
        seen = run.first_seen.get(id_)
        assert seen in {None, (answer.status_code, answer.content)}, "a result that changed"
    records = list(farm.store.client.scan_iter("predictor:prediction:*"))
    keys = Counter(filter(None, (farm.store.client.hget(record, "key") for record in records)))
    assert len(keys) == sum(map(is_keyed, range(predictions)))
    assert set(keys.values()) == {1}, "one key, two predictions"
    assert farm.store.leftovers() == set()
