"""Real `arq` processes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.processes import BIN, UNMEASURED, Api, Processes, eventually


def test_check_reports_whether_a_worker_is_alive(processes: Processes) -> None:
    assert processes.start_worker("--check").wait() == 1
    worker = processes.worker()
    eventually(lambda: processes.start_worker("--check").wait() == 0, "a sign of life")
    assert worker.stop() == 0
    assert processes.start_worker("--check").wait() == 1


def test_burst_drains_the_queue_and_exits(processes: Processes, api: Api) -> None:
    ids = [api.submit("x") for _ in range(25)]
    worker = processes.start_worker("--burst", mock_delay=0.01)
    assert worker.wait() == 0
    assert [api.read(id_).status_code for id_ in ids] == [200] * 25


def test_watchfiles_starts_the_changed_model(
    processes: Processes, api: Api, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    model = watched / "my_model.py"
    model.write_text("def predict(text):\n    return 'old'\n")
    watcher = processes.start(
        *("watchfiles", "--sigint-timeout", "25", f"{BIN}/arq predictor.worker.Settings"),
        str(watched),
        model="my_model:predict",
        PYTHONPATH=f"{Path.cwd()}:{watched}",
        PYTHONDONTWRITEBYTECODE=1,
        **UNMEASURED,
    )
    eventually(lambda: "worker ready" in watcher.output, "the first start")
    assert api.outcome(api.submit("x")).json()["output"]["result"] == "old"
    model.write_text("def predict(text):\n    return 'new'\n")
    eventually(lambda: watcher.output.count("worker ready") == 2, "the second start")
    assert api.outcome(api.submit("x")).json()["output"]["result"] == "new"
    model.write_text("def predict(text:\n")
    eventually(lambda: "SyntaxError: " in watcher.output, "an error")
    time.sleep(1)
    assert watcher.output.count("SyntaxError: ") == 1, "it is started again when a file changes"
    assert watcher.stop() == 0


def test_arq_watch_is_refused_with_the_alternative(processes: Processes, tmp_path: Path) -> None:
    worker = processes.start_worker("--watch", str(tmp_path))
    assert worker.wait() == os.EX_CONFIG
    assert "watchfiles 'arq predictor.worker.Settings' FOLDER" in worker.output


@pytest.mark.parametrize("model", ["no_such:predict", "tests.models.broken:predict"])
def test_model_load_error_is_one_line(processes: Processes, model: str) -> None:
    worker = processes.start_worker(model=model)
    assert worker.wait() == os.EX_CONFIG
    lines = [line for line in worker.output.splitlines() if "PREDICTOR_MODEL" in line]
    assert len(lines) == 1
    assert "Traceback" not in worker.output
    api = processes.start_api(0, model=model)
    assert api.wait() == os.EX_CONFIG
    assert "Traceback" not in api.output
    assert "PREDICTOR_MODEL" in api.output
    worker = processes.start_worker(model=model, log_format="json")
    assert worker.wait() == os.EX_CONFIG
    (line,) = [line for line in worker.output.splitlines() if "PREDICTOR_MODEL" in line]
    assert json.loads(line)["level"] == "ERROR"


def test_config_error_is_one_line(
    processes: Processes,
) -> None:
    for process in (processes.start_worker(timeout="soon"), processes.start_api(0, timeout=-1)):
        assert process.wait() == os.EX_CONFIG
        line = process.output.splitlines()[-1]
        assert line.startswith("predictor: PREDICTOR_TIMEOUT: ")


@pytest.mark.parametrize("query", ["unknown=1", "socket_timeout=abc"])
def test_unknown_option_in_redis_url(processes: Processes, query: str) -> None:
    url = f"redis://localhost:1/0?{query}"
    for process in (processes.start_worker(redis_url=url), processes.start_api(0, redis_url=url)):
        assert process.wait() == os.EX_CONFIG
        *_, line = process.output.splitlines()
        assert line.startswith("predictor: PREDICTOR_REDIS_URL: ")


ECHO = "tests.models.echo:predict"


def _model(api: Api, id_: str) -> tuple[str | None, str | None]:
    status = api.status(id_)
    return status["model"], status["model_version"]


def _kept(store: "redis.Redis", key: str) -> Any:
    return json.loads(str(store.get(key), "utf-8"))  # type: ignore[arg-type]


def test_the_model_that_accepted_a_prediction_and_the_one_that_ran_it_are_known(
    processes: Processes, store: "redis.Redis"
) -> None:
    old = processes.api(mock_delay=0, model_version='1 "ü"')
    ids = [old.submit("x" * 3000) for _ in range(2)]
    assert {_model(old, id_) for id_ in ids} == {("predictor.mock:predict", '1 "ü"')}
    job = _kept(store, f"arq:job:{ids[0]}")
    assert job["k"] == {"model": "predictor.mock:predict", "model_version": '1 "ü"'}
    del job["k"]["model"], job["k"]["model_version"]
    store.set(f"arq:job:{ids[0]}", json.dumps(job, separators=(",", ":")))
    assert _model(old, ids[0]) == (None, None), "of an earlier version"
    canceled = old.submit("x")
    assert old.client.post(f"/predict/{canceled}/cancel").status_code == 200
    assert _model(old, canceled) == (None, None), "none ran it"
    worker = processes.worker(model=ECHO, model_version="2")
    for id_ in [*ids, old.submit("x"), old.submit("x")]:
        assert old.outcome(id_).status_code == 200
        assert _model(old, id_) == (ECHO, "2")
    assert _kept(store, f"arq:result:{ids[0]}")["k"] == {
        "model": ECHO,
        "model_version": "2",
    }
    warnings = [line for line in worker.output.splitlines() if "were accepted for model" in line]
    assert len(warnings) == 1
    assert f"'predictor.mock:predict' '1 \"ü\"'; this worker runs '{ECHO}' '2'" in warnings[0]


def test_a_worker_with_the_model_of_the_api_says_nothing_of_it(served: Api) -> None:
    id_ = served.submit("x")
    assert served.outcome(id_).status_code == 200
    assert _model(served, id_) == ("predictor.mock:predict", None)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_running_predictions(processes: Processes, api: Api, signum: int) -> None:
    settings = {"model": "tests.models.slow:predict", "concurrency": 1}
    worker = processes.worker(**settings)
    running, queued = api.submit("0.5"), api.submit("0.5")
    eventually(lambda: "running" in _states(processes, running), "the first to run")
    worker.signal(signum)
    assert worker.wait() == 0
    assert api.read(running).status_code == 200
    assert api.read(queued).status_code == 202


def _states(processes: Processes, id_: str) -> str:
    with redis.Redis.from_url(str(processes._redis_url)) as store:
        return "running" if store.exists(f"arq:in-progress:{id_}") else "queued"


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_unfinished_predictions_are_requeued_without_a_try(
    processes: Processes, api: Api, store: "redis.Redis", name: str
) -> None:
    settings = {"model": f"tests.models.slow:{name}", "drain": 0.2}
    worker = processes.worker(**settings)
    ids = [api.submit("30") for _ in range(3)]
    eventually(lambda: store.zcard("predictor:leases") == 3, "all to run")
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 2
    assert "worker stopped; predictions requeued: 3" in worker.output
    assert not store.keys("arq:in-progress:*")
    assert not store.keys("arq:retry:*")
    assert store.zcard("arq:queue") == 3
    assert all(api.read(id_).status_code == 202 for id_ in ids)


def test_blocked_event_loop_keeps_its_lease(processes: Processes, api: Api, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    for _ in range(2):
        processes.worker(model="tests.models.slow:block", lease=0.5)
    response = api.outcome(api.submit(f"1.6 {starts}"))
    assert response.status_code == 200
    assert len(starts.read_text().splitlines()) == 1


def test_predictions_of_a_killed_worker_run_again(
    processes: Processes, api: Api, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    settings = {"model": "tests.models.slow:predict", "lease": 1}
    worker = processes.worker(**settings)
    id_ = api.submit(f"0.5 {starts}")
    eventually(lambda: starts.exists() and starts.read_text(), "the first start")
    worker.kill()
    processes.worker(**settings)
    assert api.outcome(id_).status_code == 200
    first, second = map(float, starts.read_text().splitlines())
    assert second - first < 2 + 1


def test_timed_out_thread_keeps_its_slot(processes: Processes, api: Api) -> None:
    processes.worker(model="tests.models.slow:predict_in_thread", timeout=0.2, concurrency=1)
    late, next_ = api.submit("1.5"), api.submit("0")
    started = time.monotonic()
    assert api.outcome(late).status_code == 504
    assert time.monotonic() - started < 1
    assert api.outcome(next_).status_code == 200
    assert time.monotonic() - started > 1.4


def test_cpu_of_an_idle_and_of_a_full_worker(processes: Processes, api: Api) -> None:
    """At most 0.5 % of a core each, over two seconds."""
    idle = processes.worker(**UNMEASURED)
    before = idle.cpu_ms
    time.sleep(2)
    assert idle.cpu_ms - before <= 20
    assert idle.stop() == 0
    full = processes.worker(model="tests.models.slow:predict", drain=0, **UNMEASURED)
    for _ in range(20):
        api.submit("60")
    eventually(lambda: _running(processes) == 10, "ten running")
    time.sleep(0.3)  # so that what starting them cost is over
    before = full.cpu_ms
    time.sleep(2)
    assert full.cpu_ms - before <= 20


def _running(processes: Processes) -> int:
    with redis.Redis.from_url(str(processes._redis_url)) as store:
        return int(store.zcard("predictor:leases"))


@pytest.mark.parametrize(("level", "is_shown"), [("info", True), ("warning", False)])
def test_what_a_client_causes_is_logged_as_info(
    processes: Processes, level: str, is_shown: bool
) -> None:
    api = processes.api()
    refusing = processes.worker(model="tests.models.raises:predict", log_level=level)
    api.outcome(api.submit("refused"))
    api.outcome(api.submit("exception"))
    eventually(lambda: "ModelFailed" in refusing.output, "the failure in the log")
    refusing.stop()
    slow = processes.worker(model="tests.models.slow:predict", log_level=level)
    id_ = api.submit("20")
    eventually(lambda: api.status(id_)["status"] == "running", "a run")
    api.client.post(f"/predict/{id_}/cancel")
    assert api.outcome(id_).status_code == 410
    slow.stop()
    lines = (refusing.output + slow.output).splitlines()
    assert [line.split()[2] for line in lines if "failed, " in line] == ["ERROR"]
    for outcome in ("invalid_input", "failed", "canceled"):
        found = [line.split()[2] for line in lines if f" async {outcome} (queue " in line]
        assert found == ["INFO"] * is_shown, outcome
