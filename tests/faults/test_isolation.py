"""A model that runs in processes of its own, and what it does to the api and to the worker."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.command import running
from tests.processes import Api, Process, Processes, eventually

MODEL = {"model": "tests.models.hostile:predict", "runs_in": "process"}


@pytest.fixture
def isolated(processes: Processes) -> tuple[Api, Process]:
    api = processes.api(**MODEL)
    worker = processes.worker(**MODEL, lease=1)
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "a loaded model", 20)
    return api, worker


def _is_live(api: Api) -> float:
    began = time.monotonic()
    assert api.client.get("/health/live").status_code == 200
    return time.monotonic() - began


@pytest.mark.parametrize("kill", ["segfault", "exit"])
def test_a_crash_fails_one_prediction_in_both_modes(
    isolated: tuple[Api, Process], kill: str
) -> None:
    api, worker = isolated
    outcomes: list[Callable[[], int]] = [
        lambda: api.predict(kill).status_code,
        lambda: api.outcome(api.submit(kill)).status_code,
    ]
    for outcome in outcomes:
        began = time.monotonic()
        assert outcome() == 500
        assert time.monotonic() - began < 1 + 1
    # The spare may still load: it was not waited for before the crash.
    eventually(lambda: api.predict("a").status_code == 200, "a spare took over")
    assert api.outcome(api.submit("a")).status_code == 200
    assert worker.is_running
    assert api.process.is_running


def test_what_holds_the_interpreter_can_be_canceled_and_its_parent_killed(
    isolated: tuple[Api, Process], tmp_path: Path
) -> None:
    api, worker = isolated
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(api.post, "hold", Cancel_After="1s")
        id_ = api.submit("hold")
        eventually(lambda: api.status(id_)["status"] == "running", "a run")
        slowest = max(_is_live(api) for _ in range(50))
        assert slowest < 0.1 + 0.2
        began = time.monotonic()
        assert api.client.post(f"/predict/{id_}/cancel").json().get("note") is None
        assert api.outcome(id_).status_code == 410
        assert time.monotonic() - began < 0.5 + 1
        assert held.result().status_code == 504
    assert api.outcome(api.submit("a")).status_code == 200, "a spare took over"

    def children() -> list[str]:
        return [process for process in running(tmp_path) if "model.child" in process]

    assert len(children()) >= 2
    api.submit("spin")
    worker.kill()
    api.process.kill()
    eventually(lambda: not children(), "no child", 5)
