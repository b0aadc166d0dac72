"""What can happen to workers. The numbers are the rows of the fault matrix."""

import signal
import time

import pytest

from tests.faults.conftest import Farm
from tests.processes import eventually


@pytest.mark.alone
def test_row_1_killed_with_five_running_and_three_hundred_queued(farm: Farm) -> None:
    """All run again within the lease and a second, ahead of the younger ones."""
    doomed = farm.worker(concurrency=5)
    old = farm.submit(30, 5)
    farm.until_running(5)
    farm.submit(0.01, 300)
    farm.worker(concurrency=5)
    before = farm.starts()
    killed = time.monotonic()
    doomed.kill()
    claimed = {id_: farm.store.client.get(f"arq:in-progress:{id_}") for id_ in old}

    def all_again() -> bool:
        now = {id_: farm.store.client.get(f"arq:in-progress:{id_}") for id_ in old}
        return all(now[id_] and now[id_] != claimed[id_] for id_ in old)

    eventually(all_again, "all five to run again", 5)
    assert time.monotonic() - killed < 1 + 1 + 0.1  # between two looks
    assert farm.starts() >= before


@pytest.mark.alone
@pytest.mark.parametrize("running", [0, 5])
def test_row_2_sigterm_idle_and_running_long(farm: Farm, running: int) -> None:
    """Out within the drain and a second, with 0; what was running starts elsewhere at once."""
    worker = farm.worker(drain=0.5)
    farm.submit(30, running)
    farm.until_running(running)
    other = farm.worker(drain=0)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 0.5 + 1
    farm.until_running(running)
    assert other.is_running
    tries = [farm.store.client.get(key) for key in farm.store.client.scan_iter("arq:retry:*")]
    assert tries == [b"1"] * running, "a try that was given back is not spent"


def test_row_3_sigterm_while_predictions_start_and_end(farm: Farm) -> None:
    """Out with 0, and nothing orphaned, at whatever moment it comes."""
    farm.api  # noqa: B018 (started first)
    for repeat in range(10):
        worker = farm.worker("slow:predict", concurrency=20, drain=0.2)
        farm.submit_at_once(0.01, 60)
        time.sleep(0.02 * repeat)
        began = time.monotonic()
        assert worker.stop() == 0, worker.output
        assert time.monotonic() - began < 0.2 + 4  # other tests run meanwhile
        assert not farm.store.client.keys("arq:in-progress:*")
        assert farm.store.waiting_and_running()[1] == 0
    worker = farm.worker(concurrency=100)
    eventually(lambda: farm.store.waiting_and_running() == (0, 0), "an empty queue", 20)
    assert farm.starts() >= 600
    assert worker.stop() == 0
    assert farm.store.leftovers() == set()


@pytest.mark.parametrize("model", ["slow:predict", "slow:block", "slow:predict_in_thread"])
def test_row_4_a_second_sigterm_ends_it_at_once(farm: Farm, model: str) -> None:
    worker = farm.worker(model, drain=30)
    (id_,) = farm.submit(20)
    farm.until_running(1)
    worker.signal(signal.SIGTERM)
    time.sleep(0.3)  # so that it is the second, and not the same
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 1.5
    assert not farm.store.client.keys("arq:in-progress:*")
    assert farm.api.read(id_).status_code == 202


def test_row_4_a_drain_that_is_stuck_ends_all_the_same(farm: Farm) -> None:
    """A model that holds the event loop: no handler of the loop can run."""
    worker = farm.worker("slow:block", drain=0.5)
    (id_,) = farm.submit(20)
    farm.until_running(1)
    eventually(farm.starts, "the model to hold the loop")
    began = time.monotonic()
    assert worker.stop(5) == 0
    assert time.monotonic() - began < 0.5 + 1
    assert not farm.store.client.keys("arq:in-progress:*")
    assert not farm.store.client.keys("arq:retry:*")
    assert not farm.store.client.keys("arq:queue:health-check*")
    assert farm.api.read(id_).status_code == 202


@pytest.mark.parametrize(("model", "most"), [("computes", 1), ("holds_the_lock", 2)])
def test_rows_14_15_a_model_that_takes_the_interpreter_for_three_leases(
    farm: Farm, model: str, most: int
) -> None:
    for _ in range(2):
        farm.worker(f"holds:{model}")
    ids = farm.submit(3)
    assert farm.outcomes(ids) == [200]
    assert 1 <= farm.starts() <= most


def test_row_17_a_model_that_ignores_its_end(farm: Farm) -> None:
    """Failed in time, and the slot is free again when the run has really ended."""
    farm.worker("slow:stubborn", timeout=0.3, concurrency=1)
    stubborn, next_ = farm.submit(2)[0], farm.submit(0)[0]
    began = time.monotonic()
    assert farm.outcomes([stubborn]) == [504]
    assert time.monotonic() - began < 0.3 + 1
    assert farm.outcomes([next_]) == [200]
    assert time.monotonic() - began > 1.9


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_rows_18_19_whatever_a_model_raises_or_returns(farm: Farm, name: str) -> None:
    """That prediction fails, and no other; the worker lives."""
    from tests.models.raises import RAISES
    from tests.models.results import BAD, GOOD

    raising = farm.worker(f"raises:{name}")
    ids = [farm.api.submit(text) for text in RAISES]
    fine = farm.api.submit("fine")
    expected = [422 if text == "refused" else 500 for text in RAISES]
    assert farm.outcomes(ids) == expected
    assert farm.outcomes([fine]) == [200]
    assert raising.stop() == 0
    returning = farm.worker(f"results:{name}")
    ids = [farm.api.submit(text) for text in [*BAD, *GOOD]]
    assert farm.outcomes(ids) == [500] * len(BAD) + [200] * len(GOOD)
    assert "cannot be written as JSON" in farm.api.read(ids[0]).json()["error"]
    assert returning.stop() == 0


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_results_and_messages_that_are_too_large(farm: Farm, name: str) -> None:
    """The same answer by a worker and by an api; nobody else notices."""
    settings = {"model": f"tests.models.endless:{name}", "max_result": 1_000_000, "timeout": 1}
    farm.processes.worker(**settings)
    farm._api = api = farm.processes.api(**settings)
    larger = {"error": "The model's result is larger than 1000000 bytes (PREDICTOR_MAX_RESULT)."}
    late = {"error": "The prediction ran out of time (1 s)."}
    expected = {
        "999998": (200, {}),
        "999999": (500, larger),
        "output 999998": (200, {}),
        "output 999999": (500, larger),
        "texts": (500, larger),
        "slow": (504, late),
        "refuse": (422, {"error": "Not ? this."}),
        "long refusal": (422, {"error": "?" + "x" * 9999}),
    }
    ids = {text: api.submit(text) for text in expected}
    for text, (status, body) in expected.items():
        queued = api.outcome(ids[text])
        # A piece of output is heard by nobody in an api, but is no larger.
        for answer in (queued, api.predict(text)):
            assert answer.status_code == status, (text, answer.text)
            assert body.items() <= answer.json().items()
        assert api.client.get("/health/live").elapsed.total_seconds() < 1


def test_row_20_predictions_that_kill_their_worker(farm: Farm) -> None:
    """Each is given up after its tries; the others never notice."""
    poison = [farm.api.submit(text) for text in ("exit", "segfault", "signal")]
    others = [farm.api.submit(f"fine {number}") for number in range(20)]
    workers = [farm.worker("deadly:predict", lease=0.5) for _ in range(2)]
    deadline = time.monotonic() + 40
    while farm.store.waiting_and_running() != (0, 0):
        assert time.monotonic() < deadline
        for number, worker in enumerate(workers):
            if not worker.is_running:
                workers[number] = farm.worker("deadly:predict", lease=0.5)
        time.sleep(0.05)
    assert farm.outcomes(others) == [200] * 20
    assert farm.outcomes(poison) == [500] * 3
    assert "given up" in farm.api.read(poison[0]).json()["error"]
    for id_ in poison:
        events = farm.api.client.get(f"/predict/{id_}/events").text
        assert farm.api.status(id_)["tries"] == events.count('"running"') >= 3
    assert farm.store.leftovers() == set()


def test_row_22_three_hundred_on_twelve_workers(farm: Farm) -> None:
    """All at once: no limit of the whole fleet."""
    settings = {"model": "tests.models.slow:predict", "concurrency": 25}
    workers = [farm.processes.start_worker(**settings) for _ in range(12)]
    eventually(lambda: all("worker ready" in worker.output for worker in workers), "workers", 60)
    api = farm.api
    ids = farm.submit_at_once(8, 300)
    eventually(lambda: farm.store.waiting_and_running()[1] == 300, "all at once", 8)
    assert api.process.is_running
    assert farm.outcomes(ids) == [200] * 300
    assert farm.starts() == 300


def test_row_31_an_api_that_is_killed_after_it_accepted(farm: Farm) -> None:
    ids = farm.submit(0, 5)
    farm.api.process.kill()
    farm._api = None
    farm.worker()
    assert farm.outcomes(ids) == [200] * 5
