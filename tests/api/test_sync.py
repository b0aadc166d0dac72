"""Sync predictions: the model's start, streams, and those that run on the workers."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from httpx_sse import connect_sse

from predictor.api.headers import accepts_events
from tests.processes import Api, Processes, eventually

WORDS = "tests.models.typed:words"
QUEUED = {"sync": "queue", "concurrency": 1}


def _stream(api: Api, value: Any, headers: dict[str, str] | None = None) -> list[tuple[str, Any]]:
    accept = {"Accept": "text/event-stream"} | (headers or {})
    with connect_sse(
        api.client, "POST", "/predict", json={"input": value}, headers=accept
    ) as source:
        return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


def test_the_api_serves_while_its_model_is_constructed(processes: Processes) -> None:
    api = processes.api(model="tests.models.typed:SlowToLoad")
    assert api.client.get("/health/live").status_code == 200
    early = api.predict("a")
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    assert "still loading" in early.json()["error"]
    assert api.client.get("/health/ready").status_code == 503
    id_ = api.submit("a")
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "it is ready")
    assert api.predict("a").json() == {"input": "a", "result": "a"}
    worker = processes.worker(model="tests.models.typed:SlowToLoad")
    assert api.outcome(id_).status_code == 200
    assert "tests.models.typed:SlowToLoad ready after 1." in worker.output


def test_a_model_that_cannot_be_constructed_ends_the_process(processes: Processes) -> None:
    model = "tests.models.typed:FailsToLoad"
    for process in (processes.start_worker(model=model), processes.start_api(0, model=model)):
        assert process.wait() == os.EX_CONFIG
        *_, line = process.output.splitlines()
        assert line.startswith(f"predictor: PREDICTOR_MODEL: {model!r}: starting it raised OSErr")
        assert "Traceback" in process.output, "of the model"
        assert "uvicorn" not in process.output.partition("Traceback")[2]


@pytest.mark.parametrize("settings", [{}, QUEUED], ids=["api", "queue"])
def test_a_sync_stream(processes: Processes, tmp_path: Path, settings: dict[str, Any]) -> None:
    api = processes.api(model=WORDS, **settings)
    processes.worker(model=WORDS, concurrency=1)
    text = " ".join(map(str, range(500)))
    events = [event for event in _stream(api, text) if event[0] != "status"]
    assert [data for name, data in events if name == "output"] == [f"{n} " for n in range(500)]
    output = {"input": text, "result": f"{text} "}
    assert events[500:] == [("completed", {"status": "succeeded", "output": output})]
    minimal = _stream(api, "a", {"Prefer": "return=minimal"})[-1]
    assert minimal == ("completed", {"status": "succeeded", "output": {"result": "a "}})
    refused = api.client.post(
        "/predict", json={"input": 1}, headers={"Accept": "text/event-stream"}
    )
    assert refused.status_code == 422

    closed = tmp_path / "closed"
    body, accept = {"input": f"endless {closed}"}, {"Accept": "text/event-stream"}
    with connect_sse(api.client, "POST", "/predict", json=body, headers=accept) as source:
        for number, _ in enumerate(source.iter_sse()):
            if number == 10:
                break
    left = time.monotonic()
    eventually(closed.exists, "the model was closed at its next piece")
    assert time.monotonic() - left < 3
    assert api.predict("a").status_code == 200, "its slot is free"


def test_a_stream_that_breaks_ends_with_the_error_and_is_logged(processes: Processes) -> None:
    api = processes.api(model="tests.models.typed:breaks")
    first, (name, data) = _stream(api, "a")
    assert first == ("output", "a")
    assert (name, data) == (
        "completed",
        {
            "status": "failed",
            "error": "The model failed on this input.",
            "code": "model_failed",
        },
    )
    assert api.process.output.count("RuntimeError: the model's secret") == 1


def test_sync_predictions_on_the_workers(processes: Processes, store: "redis.Redis") -> None:
    """One slot: they are queued instead of refused, and nothing of them is left."""
    model = "tests.models.slow:predict"
    api = processes.api(model=model, **QUEUED, timeout=2)
    processes.worker(model=model, concurrency=1, timeout=2)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(api.predict, ["0.1"] * 6))
    assert [answer.json() for answer in answers] == [{"input": "0.1", "result": "0.1"}] * 6
    assert "queue;dur=" in answers[0].headers["Server-Timing"]
    assert api.predict("no number").status_code == 500
    late = api.predict("5")
    assert late.status_code == 504
    assert late.json()["error"].startswith("The prediction ran out of time")
    assert api.post("3", Cancel_After="60s").status_code == 504
    eventually(lambda: not list(store.scan_iter("predictor:prediction:*")), "all is erased")


def test_an_api_of_the_queue_constructs_no_model(processes: Processes) -> None:
    model = "tests.models.typed:FailsToLoad"
    api = processes.api(model=model, **QUEUED)
    assert api.client.get("/health/ready").status_code == 200
    assert api.predict(3).status_code == 422, "it knows the types"  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, QUEUED], ids=["api", "queue"])
def test_a_stop_lets_sync_predictions_finish(
    processes: Processes, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model, starts = {"model": "tests.models.slow:predict"}, tmp_path / "starts"
    api, _ = processes.api(**model, **settings | {"concurrency": 2}), processes.worker(**model)
    with ThreadPoolExecutor() as threads:
        text = f"1 {starts}"
        one, other = threads.submit(api.predict, text), threads.submit(_stream, api, text)
        eventually(lambda: starts.exists() and starts.read_text().count("\n") == 2, "two runs")
        api.process.signal(signal.SIGTERM)
        assert one.result().status_code == 200
        assert other.result()[-1][1]["status"] == "succeeded"
    assert api.process.wait() == -signal.SIGTERM, "as uvicorn ends"


@pytest.mark.parametrize(
    ("accept", "are_wanted"),
    [
        (["text/event-stream"], True),
        (["application/json, text/event-stream; q=0.5"], True),
        (["application/json", "Text/Event-Stream"], True),
        (["application/json, text/event-stream;q=0"], False),
        (["text/event-stream-x"], False),
        (["*/*"], False),
        ([], False),
    ],
)
def test_events_are_for_who_accepts_them(accept: list[str], are_wanted: bool) -> None:
    assert accepts_events(accept) is are_wanted
