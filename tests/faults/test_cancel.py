"""Row 24 of the fault matrix: cancel in every state."""

import signal
import time

import pytest

from tests.faults.conftest import Farm
from tests.processes import Api, eventually


def _cancel(farm: Farm, id_: str) -> tuple[int, str]:
    answer = farm.api.client.post(f"/predict/{id_}/cancel")
    return answer.status_code, answer.json().get("status", answer.json().get("error"))


CANCELED = "Prediction was canceled."


def test_one_that_waits_is_gone_at_once(farm: Farm) -> None:
    (id_,) = farm.submit(0)
    began = time.monotonic()
    assert _cancel(farm, id_) == (200, "canceled")
    assert time.monotonic() - began < 0.5
    answer = farm.api.read(id_)
    assert answer.status_code == 410
    assert answer.json() == {"error": CANCELED, "prediction_id": id_}
    assert _cancel(farm, id_) == (200, "canceled"), "twice is no error"
    farm.worker()
    assert farm.outcomes(farm.submit(0)) == [200]
    assert farm.starts() == 1
    assert farm.store.leftovers() == set()


@pytest.mark.parametrize("model", ["slow:predict", "slow:predict_in_thread", "slow:stubborn"])
def test_one_that_runs_is_told_and_ends(farm: Farm, model: str) -> None:
    """Within half a second; a slot that cannot be freed is freed when the run has ended."""
    farm._api = farm.processes.api(model=f"tests.models.{model}")
    worker = farm.worker(model, concurrency=1)
    (id_,) = farm.submit(1.5)
    farm.until_running(1)
    started = time.monotonic()
    eventually(farm.starts, "the start")
    assert _cancel(farm, id_) == (202, "canceling")
    answer = farm.api.outcome(id_)
    assert time.monotonic() - started < 0.5
    assert (answer.status_code, answer.json()["error"]) == (410, CANCELED)
    assert _cancel(farm, id_) == (200, "canceled")
    assert farm.outcomes(farm.submit(0)) == [200]
    held = time.monotonic() - started
    assert held < 1 if model == "slow:predict" else held > 1.4
    assert farm.api.read(id_).status_code == 410, "its result is kept out"
    assert worker.is_running
    assert "Traceback" not in worker.output
    assert farm.store.leftovers() == set()


def test_the_answer_says_when_a_model_cannot_be_stopped(farm: Farm) -> None:
    for name, says in (("predict", False), ("predict_in_thread", True)):
        farm._api = farm.processes.api(model=f"tests.models.slow:{name}")
        worker = farm.worker(f"slow:{name}", drain=0)
        (id_,) = farm.submit(1)
        farm.until_running(1)
        answer = farm.api.client.post(f"/predict/{id_}/cancel")
        assert ("cannot be stopped" in answer.text) is says
        assert farm.outcomes([id_]) == [410]
        worker.stop()


def test_one_that_has_ended_is_left_alone(farm: Farm) -> None:
    farm.worker()
    (id_,) = farm.submit(0)
    result = farm.api.outcome(id_).content
    assert _cancel(farm, id_) == (409, "Prediction has already ended.")
    assert farm.api.read(id_).content == result


def test_one_that_nobody_knows(served: Api) -> None:
    for id_ in ("abc123", "a%20b", "x" * 65):
        answer = served.client.post(f"/predict/{id_}/cancel")
        assert answer.status_code == 404
        assert answer.json() == {"error": "Prediction ID not found."}


def test_one_whose_worker_died_is_not_run_again(farm: Farm) -> None:
    worker = farm.worker()
    (id_,) = farm.submit(30)
    eventually(farm.starts, "the start")
    worker.signal(signal.SIGSTOP)  # it will never hear
    assert _cancel(farm, id_) == (202, "canceling")
    worker.kill()
    farm.worker()
    assert farm.outcomes([id_]) == [410]
    assert farm.starts() == 1
    assert farm.store.leftovers() == set()


def test_word_that_got_lost_comes_with_the_next_renewal(farm: Farm) -> None:
    farm.worker(lease=1)
    (id_,) = farm.submit(30)
    farm.until_running(1)
    farm.store.client.hset(f"predictor:prediction:{id_}", "canceled", "1")
    began = time.monotonic()
    assert farm.outcomes([id_]) == [410]
    assert time.monotonic() - began < 1


def test_sixty_that_race_their_end_leave_nothing(farm: Farm) -> None:
    """Each is canceled or done; whatever was said of it stays; nothing is left to hit another."""
    farm.worker(concurrency=100)
    ids = farm.submit(0.05, 60)
    said = [_cancel(farm, id_)[0] for id_ in ids]
    outcomes = farm.outcomes(ids)
    for code, outcome in zip(said, outcomes, strict=True):
        assert outcome in {200: {410}, 202: {410, 200}, 409: {200}}[code]
    assert farm.outcomes(ids) == outcomes
    assert farm.store.leftovers() == set()
    assert not farm.store.client.exists("arq:abort")
    assert farm.outcomes(farm.submit(0, 20)) == [200] * 20
