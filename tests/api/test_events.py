"""What happens to a prediction, followed by real clients over real connections."""

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from httpx_sse import ServerSentEvent, connect_sse

from tests.processes import Api, Forked, Processes, eventually, free_port

TALKS = "tests.models.talks:predict"


@pytest.fixture(scope="session")
def talks(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api and a worker whose model talks while it runs."""
    with Processes(tmp_path_factory.mktemp("talks"), f"{valkey}?db=3", Forked) as started:
        api = started.api(model=TALKS)
        started.worker(model=TALKS)
        yield api


def _events(api: Api, id_: str, after: str | None = None) -> list[ServerSentEvent]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with connect_sse(api.client, "GET", f"/predict/{id_}/events", headers=headers) as source:
        return list(source.iter_sse())


def _told(events: list[ServerSentEvent]) -> list[Any]:
    return [(event.event, json.loads(event.data)) for event in events]


def test_events_come_in_order(talks: Api) -> None:
    id_ = talks.submit("3 0.15")
    live = _events(talks, id_)
    third = [("output", 0), ("progress", {"fraction": 1 / 3, "message": "1 of 3"})]
    assert _told(live) == [
        ("status", {"status": "queued"}),
        ("status", {"status": "running", "try": 1}),
        *third,
        *[("output", 1), ("progress", {"fraction": 2 / 3, "message": "2 of 3"})],
        *[("output", 2), ("progress", {"fraction": 1.0, "message": "3 of 3"})],
        (
            "completed",
            {"status": "succeeded", "output": {"input": "3 0.15", "result": id_}},
        ),
    ]
    assert live[0].retry == 1000
    again = _events(talks, id_)
    assert [event.id for event in again] == [event.id for event in live], "after the end, too"
    assert _told(again) == _told(live)
    assert _told(_events(talks, id_, live[3].id)) == _told(live[4:])
    assert talks.status(id_)["progress"] == {"fraction": 1.0, "message": "3 of 3"}


def test_the_input_is_left_out_of_the_last_event_on_request(talks: Api) -> None:
    id_, headers = talks.submit("1"), {"Prefer": "return=minimal, wait=5"}
    with connect_sse(talks.client, "GET", f"/predict/{id_}/events", headers=headers) as source:
        assert source.response.headers["preference-applied"] == "return=minimal"
        *_, last = source.iter_sse()
    assert json.loads(last.data) == {"status": "succeeded", "output": {"result": id_}}


def test_no_content_after_the_last_event(talks: Api) -> None:
    id_ = talks.submit("1")
    last = _events(talks, id_)[-1]
    answer = talks.client.get(f"/predict/{id_}/events", headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.content) == (204, b"")


def test_no_more_than_ten_progress_events_a_second_and_the_last_one(talks: Api) -> None:
    told = _told(_events(talks, talks.submit("200 0.005")))
    progress = [data["fraction"] for kind, data in told if kind == "progress"]
    outputs = [data for kind, data in told if kind == "output"]
    seconds = 200 * 0.005
    assert 2 <= len(progress) <= 10 * (seconds * 2) + 1
    assert progress[-1] == 1.0
    assert progress == sorted(progress)
    assert outputs == list(range(200)), "outputs are never left out"


def test_a_stream_does_not_miss_what_is_more_than_one_read(talks: Api) -> None:
    told = _told(_events(talks, talks.submit("450")))
    assert [data for kind, data in told if kind == "output"] == list(range(450))
    assert told[-1][0] == "completed"


@pytest.mark.parametrize("id_", ["unknown", "no.id", "x" * 65])
def test_an_unknown_id_is_no_empty_stream(talks: Api, id_: str) -> None:
    answer = talks.client.get(f"/predict/{id_}/events")
    assert answer.status_code == 404
    assert answer.text == '{"error":"Prediction ID not found."}'


@pytest.mark.parametrize("after", ["2", "2147483648", "4294967295", "999999999999999"])
def test_nothing_is_after_any_later_event(talks: Api, api: Api, after: str) -> None:
    """Of a prediction whose events are kept, and of one whose state tells them."""
    talked, canceled = talks.submit("1"), api.submit("x")
    assert talks.read(talked, wait=10).status_code == 200
    api.client.post(f"/predict/{canceled}/cancel")
    last = {"Last-Event-ID": after}
    answer = api.client.get(f"/predict/{canceled}/events", headers=last)
    assert answer.status_code == 204, answer.text
    answer = talks.client.get(f"/predict/{talked}/events", headers=last)
    assert answer.status_code == (200 if after == "2" else 204), answer.text


def test_an_invalid_last_event_id_is_rejected(talks: Api) -> None:
    id_ = talks.submit("0")
    for value in ("-1", "1e308", "x" * 10_000):
        answer = talks.client.get(f"/predict/{id_}/events", headers={"Last-Event-ID": value})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("Header Last-Event-ID must be")


def test_the_same_from_a_thread(processes: Processes) -> None:
    model = "tests.models.talks:predict_in_thread"
    api, _ = processes.api(), processes.worker(model=model)
    told = _told(_events(api, api.submit("3 0.15")))
    assert [kind for kind, _ in told[2:]] == ["output", "progress"] * 3 + ["completed"]


def test_a_thread_sees_that_it_was_canceled(processes: Processes, tmp_path: Path) -> None:
    model = "tests.models.talks:attentive"
    api, _ = processes.api(), processes.worker(model=model, timeout=30, concurrency=1)
    canceled, late = tmp_path / "canceled", tmp_path / "late"
    id_ = api.submit(str(canceled))
    eventually(lambda: api.status(id_)["status"] == "running", "it runs")
    api.client.post(f"/predict/{id_}/cancel")
    assert api.read(id_, wait=10).status_code == 410
    assert api.read(api.submit(str(late), Cancel_After="2s"), wait=10).status_code == 504
    eventually(lambda: late.exists() and late.read_text(), "the model has noticed")
    assert 20 < float(canceled.read_text()) <= 30
    assert -1 < float(late.read_text()) <= 0, "the deadline is that of the request"


def test_events_of_a_failure_and_a_cancel(talks: Api, api: Api) -> None:
    kind, data = _told(_events(talks, talks.submit("nonsense")))[-1]
    assert (kind, data) == (
        "completed",
        {
            "status": "failed",
            "error": "The model failed on this input.",
            "code": "model_failed",
        },
    )
    id_ = api.submit("x")
    api.client.post(f"/predict/{id_}/cancel")
    assert _told(_events(api, id_)) == [
        ("status", {"status": "queued"}),
        (
            "completed",
            {"status": "canceled", "error": "Prediction was canceled.", "code": "canceled"},
        ),
    ]


def test_an_expiry_without_a_worker_ends_the_stream(api: Api) -> None:
    id_ = api.submit("x", Cancel_After="200ms")
    (queued, completed) = _told(_events(api, id_))
    assert queued == ("status", {"status": "queued"})
    assert completed[1]["status"] == "timed_out"


def test_events_of_a_second_try_after_a_worker_died(processes: Processes, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": "tests.models.talks:dies_once", "lease": 0.5}
    api, _ = processes.api(), processes.worker(**settings)
    id_ = api.submit(str(tmp_path / "died"))
    follower = threading.Thread(target=lambda: told.extend(_told(_events(api, id_))))
    told: list[Any] = []
    follower.start()
    eventually((tmp_path / "died").exists, "the worker dies")
    processes.worker(**settings)
    follower.join()
    assert told[:5] == [
        ("status", {"status": "queued"}),
        ("status", {"status": "running", "try": 1}),
        ("output", "first"),
        ("status", {"status": "running", "try": 2}),
        ("output", "second"),
    ]
    assert told[5][1]["status"] == "succeeded"


def _follow_with_cuts(url: str, id_: str, cuts: random.Random, on_cut: Any) -> list[Any]:
    """All events as a client gets them that loses its connection again and again."""
    got: list[ServerSentEvent] = []
    while not got or got[-1].event != "completed":
        after = {"Last-Event-ID": got[-1].id} if got else {}
        enough = len(got) + cuts.randint(1, 12)
        try:
            with (
                httpx.Client(base_url=url, timeout=10) as client,
                connect_sse(client, "GET", f"/predict/{id_}/events", headers=after) as source,
            ):
                for event in source.iter_sse():
                    got.append(event)
                    if len(got) == enough:
                        break
        except httpx.TransportError:
            time.sleep(0.01)
        on_cut()
    return got


def test_a_stream_that_is_cut_again_and_again_loses_nothing(processes: Processes) -> None:
    port, cuts = free_port(), 0
    api = processes.client(port, processes.start_api(port))
    processes.worker(model=TALKS)
    id_ = api.submit("80 0.02")

    def on_cut() -> None:
        nonlocal api, cuts
        cuts += 1
        if cuts == 5:
            api.process.signal(signal.SIGTERM)
            api.process.wait()
            api = processes.client(port, processes.start_api(port))

    got = _follow_with_cuts(f"http://127.0.0.1:{port}", id_, random.Random(4), on_cut)
    assert cuts >= 10
    assert len({event.id for event in got}) == len(got), "none twice"
    assert [json.loads(e.data) for e in got if e.event == "output"] == list(range(80))
    assert [event.id for event in _events(api, id_)] == [event.id for event in got]


def test_disconnected_followers_leave_no_subscription(api: Api, store: "redis.Redis") -> None:
    id_ = api.submit("x")
    channel = f"predictor:events:{id_}"
    with connect_sse(api.client, "GET", f"/predict/{id_}/events") as source:
        events = source.iter_sse()
        assert next(events).event == "status"
        eventually(lambda: store.pubsub_channels(channel), "somebody follows")
    eventually(lambda: not store.pubsub_channels(channel), "nobody follows any more")


def test_events_of_a_sync_prediction_are_dropped(talks: Api) -> None:
    answer = talks.predict("3")
    assert answer.status_code == 200
    assert len(answer.json()["result"]) == 32


def test_what_is_lost_while_it_is_followed_ends_the_stream(api: Api, store: "redis.Redis") -> None:
    id_ = api.submit("x")
    with connect_sse(api.client, "GET", f"/predict/{id_}/events") as source:
        events = source.iter_sse()
        assert next(events).event == "status"
        store.flushdb()
        assert _told(list(events)) == [("completed", {"status": "erased"})]


def test_foreign_events_are_skipped(api: Api, store: "redis.Redis") -> None:
    id_, other = api.submit("x"), api.submit("y")
    store.rpush(f"predictor:events:{id_}", "nonsense {}", b"\xff", "", "status {}")
    store.set(f"predictor:events:{other}", "no list", ex=60)
    for one in (id_, other):
        assert api.client.post(f"/predict/{one}/cancel").status_code == 200
    assert [event.event for event in _events(api, id_)] == ["status", "completed"]
    assert [event.event for event in _events(api, other)] == ["completed"]


def test_a_quiet_stream_is_pinged(api: Api) -> None:
    with api.client.stream("GET", f"/predict/{api.submit('x')}/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert ": ping" in answer.iter_lines()
