"""Deliveries from the request to the receiver, by real processes."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

from predictor.config import Config
from predictor.prediction import Attempt, DeliveryState, Job, Json, new_id
from predictor.store.deliveries import Deliveries
from predictor.store.predictions import Predictions
from predictor.webhooks.deliverer import Deliverer
from predictor.webhooks.sender import Sender
from tests.processes import UNMEASURED, Api, Forked, Process, Processes, eventually

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SETTINGS: dict[str, Any] = {
    "webhook_secrets": SECRET,
    "webhook_allow": "127.0.0.1",
    "model": "tests.models.slow:predict",
    "lease": 1,
}


class Receiver:
    """A server that is told of predictions; `answer` gives the status for each telling."""

    def __init__(self, port: int = 0) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[int], tuple[int, dict[str, str]]] = lambda _: (204, {})
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the sender was killed
                receiver.told.append((dict(self.headers.items()), body))
                status, headers = receiver.answer(len(receiver.told))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def verified(self) -> list[Any]:
        """What it was told, each telling checked as a receiver should."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in self.told]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def api(processes: Processes) -> Api:
    return processes.api(**SETTINGS)


def _deliverer(processes: Processes, **settings: Any) -> Process:
    measured = {name: os.environ.get(name, "") for name in UNMEASURED}
    command = ("python", "-m", "predictor.webhooks")
    return processes.start(*command, **(SETTINGS | measured | settings))


def _webhook(api: Api, id_: str) -> Any:
    answer = api.client.get(f"/predict/{id_}/webhook")
    assert answer.status_code == 200, answer.text
    return answer.json()


def _settled(api: Api, id_: str) -> Any:
    return eventually(
        lambda: (w := _webhook(api, id_))["state"] in {"delivered", "failed"} and w, "it is settled"
    )


def test_every_final_state_is_delivered(processes: Processes, api: Api, receiver: Receiver) -> None:
    waiting = api.submit("1", Webhook_Url=receiver.url)
    assert _webhook(api, waiting)["state"] == "waiting"
    assert api.client.post(f"/predict/{waiting}/webhook").status_code == 409
    api.client.post(f"/predict/{waiting}/cancel")
    expired = api.submit("1", Webhook_Url=receiver.url, Cancel_After="50ms")
    eventually(lambda: api.read(expired).status_code == 504, "it expires")
    processes.worker(**SETTINGS)
    _deliverer(processes)
    late = api.submit("5", Webhook_Url=receiver.url, Cancel_After="300ms")
    done = api.submit("0", Webhook_Url=receiver.url)
    failed = api.submit("nonsense", Webhook_Url=receiver.url)
    running = api.submit("5", Webhook_Url=receiver.url)
    eventually(lambda: api.status(running)["status"] == "running", "it runs")
    api.client.post(f"/predict/{running}/cancel")
    eventually(lambda: len(receiver.told) == 6, "all are told")
    told = {one["data"]["prediction_id"]: one for one in receiver.verified()}
    assert {id_: one["type"] for id_, one in told.items()} == {
        waiting: "prediction.canceled",
        expired: "prediction.timed_out",
        late: "prediction.timed_out",
        done: "prediction.succeeded",
        failed: "prediction.failed",
        running: "prediction.canceled",
    }
    assert told[done]["data"] == {
        "prediction_id": done,
        "status": "succeeded",
        "output": {"input": "0", "result": "0"},
    }
    assert told[failed]["data"]["error"] == "The model failed on this input."
    assert told[done]["timestamp"] == api.status(done)["finished"]
    ids = [headers["webhook-id"] for headers, _ in receiver.told]
    assert sorted(ids) == sorted(f"msg_{id_}" for id_ in told)


def test_retries_until_the_receiver_is_up(
    processes: Processes, api: Api, store: "redis.Redis"
) -> None:
    gone = Receiver()
    gone.close()
    processes.worker(**SETTINGS)
    _deliverer(processes)
    id_ = api.submit("0", Webhook_Url=gone.url)
    pending = eventually(lambda: (w := _webhook(api, id_))["attempts"] and w, "it was tried")
    assert pending["state"] == "pending"
    assert pending["attempts"][0]["status"] is None
    assert pending["attempts"][0]["error"] == "It could not be connected to."
    back = Receiver(int(gone.url.split(":")[2].split("/")[0]))
    try:
        back.answer = lambda count: (503, {"Retry-After": "1"}) if count < 2 else (200, {})
        settled = _settled(api, id_)
        assert settled["state"] == "delivered"
        assert [attempt["status"] for attempt in settled["attempts"]] == [None, 503, 200]
        assert len({headers["webhook-id"] for headers, _ in back.told}) == 1
        assert len({body for _, body in back.told}) == 1
        assert len(back.verified()) == 2
    finally:
        back.close()


def test_expired_prediction_is_delivered_without_a_worker(
    processes: Processes, api: Api, receiver: Receiver
) -> None:
    _deliverer(processes)
    late = api.submit("0", Webhook_Url=receiver.url, Cancel_After="300ms")
    api.submit("0", Webhook_Url=receiver.url)
    assert _settled(api, late)["state"] == "delivered"
    (told,) = receiver.verified()
    assert told["type"] == "prediction.timed_out"
    status = api.status(late)
    assert (status["status"], status["started"], status["tries"]) == ("timed_out", None, 0)
    assert status["created"] < status["finished"]


def test_run_that_outlives_the_queue_ttl_is_delivered(
    processes: Processes, receiver: Receiver, store: "redis.Redis"
) -> None:
    brief = SETTINGS | {"queue_ttl": 0.5, "result_ttl": 0.5}
    api = processes.api(**brief)
    processes.worker(**brief)
    _deliverer(processes, **brief)
    api.submit("1.5", Webhook_Url=receiver.url)
    eventually(lambda: receiver.told, "it is told")


def test_erased_during_delivery(
    processes: Processes, receiver: Receiver, store: "redis.Redis"
) -> None:
    brief = SETTINGS | {"result_ttl": 0.3}
    api = processes.api(**brief)
    processes.worker(**brief)
    id_ = api.submit("0", Webhook_Url=receiver.url)
    eventually(lambda: _webhook(api, id_)["state"] == "pending", "it has ended")
    eventually(lambda: api.read(id_).status_code == 404, "its result is gone")
    assert api.client.delete(f"/predict/{id_}").status_code == 204
    assert not list(store.scan_iter(f"*{id_}*"))
    assert store.zcard("predictor:deliveries") == 0


def test_foreign_data_does_not_end_the_deliverer(
    processes: Processes, api: Api, receiver: Receiver, store: "redis.Redis"
) -> None:
    bad = {"url": receiver.url, "result": "nonsense", "tries": "abc", "since": "-1"}
    store.hset("predictor:webhook:bad", mapping=bad)
    store.expire("predictor:webhook:bad", 60)
    store.set("predictor:delivery-wake", "not a list", ex=60)
    store.zadd("predictor:deliveries", {"bad": 1})
    store.expire("predictor:deliveries", 60)
    deliverer = _deliverer(processes)
    processes.worker(**SETTINGS)
    id_ = api.submit("0", Webhook_Url=receiver.url)
    assert _settled(api, id_)["state"] == "delivered"
    assert deliverer.is_running


def test_410_ends_delivery_until_redelivery_is_requested(
    processes: Processes, api: Api, receiver: Receiver, store: "redis.Redis"
) -> None:
    receiver.answer = lambda count: (410 if count == 1 else 204, {})
    processes.worker(**SETTINGS)
    _deliverer(processes)
    id_ = api.submit("0", Webhook_Url=receiver.url)
    gone = _settled(api, id_)
    assert (gone["state"], gone["next_attempt"]) == ("failed", None)
    assert store.zcard("predictor:deliveries") == 0
    answer = api.client.post(f"/predict/{id_}/webhook")
    assert (answer.status_code, answer.json()) == (202, {"prediction_id": id_, "state": "pending"})
    eventually(lambda: _webhook(api, id_)["state"] == "delivered", "it is told again")
    assert receiver.told[0][1] == receiver.told[1][1]
    assert api.client.delete(f"/predict/{id_}").status_code == 204
    assert api.client.get(f"/predict/{id_}/webhook").status_code == 404
    assert api.client.post(f"/predict/{id_}/webhook").status_code == 404


def test_redelivery_requested_during_an_attempt(
    processes: Processes, api: Api, receiver: Receiver
) -> None:
    asked, release = threading.Event(), threading.Event()

    def answer(count: int) -> tuple[int, dict[str, str]]:
        if count == 1:
            asked.set()
            release.wait(10)
        return 204, {}

    receiver.answer = answer
    processes.worker(**SETTINGS)
    _deliverer(processes)
    id_ = api.submit("0", Webhook_Url=receiver.url)
    asked.wait(10)
    assert api.client.post(f"/predict/{id_}/webhook").status_code == 202
    release.set()
    told = eventually(
        lambda: (w := _webhook(api, id_))["state"] == "delivered" and len(w["attempts"]) == 2 and w,
        "both attempts are known",
    )
    assert [attempt["status"] for attempt in told["attempts"]] == [204, 204]


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        (DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.DELIVERED),
        (DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.DELIVERED),
        (DeliveryState.FAILED, DeliveryState.PENDING, DeliveryState.FAILED),
        (DeliveryState.FAILED, DeliveryState.DELIVERED, DeliveryState.DELIVERED),
    ],
)
async def test_what_two_deliverers_record(
    redis_url: str, first: DeliveryState, second: DeliveryState, state: DeliveryState
) -> None:
    """One of them was taken for dead."""
    config, id_ = Config(redis_url=redis_url), new_id()
    deliveries = Deliveries(config)
    async with Predictions(config) as predictions:
        await predictions.submit(id_, Job(Json(b"1"), webhook="http://127.0.0.1/"))
        await predictions.cancel(id_)
        delivery = (await deliveries.claim(1, []))[id_]
        for number, each in enumerate((first, second), 1):
            pause = 9.0 if each is DeliveryState.PENDING else None
            await deliveries.record(delivery, Attempt(number, 0.1), each, pause)
        webhook = await predictions.webhook(id_)
        assert (webhook.state, webhook.next_at, len(webhook.attempts)) == (state, None, 2)
    await deliveries.close()


def test_redirects_and_private_addresses_are_not_followed(
    processes: Processes, api: Api, receiver: Receiver
) -> None:
    receiver.answer = lambda _: (302, {"Location": receiver.url})
    processes.worker(**SETTINGS)
    strict = _deliverer(processes, webhook_allow="")
    refused = api.submit("0", Webhook_Url=receiver.url)
    attempt = eventually(lambda: _webhook(api, refused)["attempts"], "it was tried")[0]
    assert attempt["error"].startswith("Webhook-Url must lead to a public address")
    assert not receiver.told, "not even connected to"
    strict.stop()
    _deliverer(processes)
    redirected = api.submit("0", Webhook_Url=receiver.url)
    attempt = eventually(lambda: _webhook(api, redirected)["attempts"], "it was tried")[0]
    assert (attempt["status"], "not followed" in attempt["error"]) == (302, True)


def test_killed_deliverer_loses_nothing(processes: Processes, api: Api, receiver: Receiver) -> None:
    processes.worker(**SETTINGS)
    slow, release = threading.Event(), threading.Event()

    def answer(count: int) -> tuple[int, dict[str, str]]:
        if count <= 5:
            slow.set()
            release.wait(10)
        return 204, {}

    receiver.answer = answer
    deliverer = _deliverer(processes)
    ids = [api.submit("0", Webhook_Url=receiver.url) for _ in range(20)]
    slow.wait(10)
    deliverer.signal(signal.SIGKILL)
    deliverer.wait()
    release.set()
    _deliverer(processes)
    assert {_settled(api, id_)["state"] for id_ in ids} == {"delivered"}
    assert {one["data"]["prediction_id"] for one in receiver.verified()} == set(ids)


def test_stopped_deliverer_releases_its_deliveries(
    processes: Processes, api: Api, receiver: Receiver
) -> None:
    processes.worker(**SETTINGS)
    asked, release = threading.Event(), threading.Event()

    def answer(count: int) -> tuple[int, dict[str, str]]:
        if count == 1:
            asked.set()
            release.wait(10)
        return 204, {}

    receiver.answer = answer
    first = _deliverer(processes, drain=0.1, lease=60)
    id_ = api.submit("0", Webhook_Url=receiver.url)
    asked.wait(10)
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 3
    release.set()
    _deliverer(processes)
    assert _settled(api, id_)["state"] == "delivered", "a lease of a minute is not waited for"


ANYWHERE = SETTINGS | {"webhook_allow": "127.0.0.0/8", "drain": 0}


@contextmanager
def _silent(count: int) -> Iterator[list[tuple[str, socket.socket]]]:
    """As many receivers that never answer, each at an address of its own, with their URLs."""
    with ExitStack() as opened:
        silent = []
        for number in range(count):
            address = f"127.0.{2 + number // 250}.{1 + number % 250}"
            server = opened.enter_context(socket.create_server((address, 0)))
            server.settimeout(10)
            silent.append((f"http://{address}:{server.getsockname()[1]}/", server))
        yield silent


def test_hanging_receivers_do_not_delay_others(processes: Processes, receiver: Receiver) -> None:
    api = processes.api(**ANYWHERE)
    processes.worker(**ANYWHERE, concurrency=50)
    with _silent(600) as silent:
        hanging = [api.submit("0", Webhook_Url=url) for url, _ in silent]
        eventually(lambda: {api.read(id_).status_code for id_ in hanging[-50:]} == {200}, "the end")
        quick = api.submit("0", Webhook_Url=receiver.url)
        eventually(lambda: api.read(quick).status_code == 200, "it has ended")
        began = time.monotonic()
        deliverer = _deliverer(processes, **ANYWHERE)
        assert _settled(api, quick)["state"] == "delivered"
        took = time.monotonic() - began
        assert took < 20, "without room for those who answer it takes 45 s"
        # Who hung for longest gave way, its connection is closed, and it is tried again.
        first = eventually(lambda: (w := _webhook(api, hanging[0]))["attempts"] and w, "it ended")
        assert first["state"] == "pending"
        assert first["next_attempt"] is not None
        (attempt,) = first["attempts"]
        assert attempt["error"] == f"It did not answer within {attempt['seconds']:.2g} s."
        assert 2 <= attempt["seconds"] < 10
        cut, _ = silent[0][1].accept()
        with cut:
            assert b"".join(iter(lambda: cut.recv(65536), b"")).startswith(b"POST / ")
        silent[0][1].accept()[0].close()
        files = Path(f"/proc/{deliverer.pid}/fd")
        eventually(lambda: len(list(files.iterdir())) < 450, "what gave way is closed")


def test_attempts_to_one_host_are_bounded(processes: Processes, receiver: Receiver) -> None:
    api = processes.api(**ANYWHERE)
    processes.worker(**ANYWHERE)
    with _silent(1) as [(url, silent)], ExitStack() as taken:
        ids = [api.submit("0", Webhook_Url=url) for _ in range(70)]
        quick = api.submit("0", Webhook_Url=receiver.url)
        eventually(lambda: api.read(quick).status_code == 200, "all have ended")
        _deliverer(processes, **ANYWHERE)
        assert _settled(api, quick)["state"] == "delivered"
        for _ in range(50):
            taken.enter_context(silent.accept()[0])
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()
        assert all(_webhook(api, id_)["attempts"] == [] for id_ in ids), "none is cut short"


async def test_unread_bodies_are_cut_short_for_others(
    processes: Processes,
    receiver: Receiver,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("predictor.webhooks.deliverer._BYTES_AT_ONCE", 300_000)
    monkeypatch.setattr("predictor.webhooks.deliverer._PROMPT", 0.5)
    api = processes.api(**ANYWHERE)
    processes.worker(**ANYWHERE)
    config = Config(redis_url=redis_url, lease=5, webhook_allow="127.0.0.0/8")
    deliveries, stop = Deliveries(config), asyncio.Event()
    sender = Sender(config.allowed_targets, [SECRET])
    running = asyncio.create_task(Deliverer(deliveries, sender, None).run(stop, 0))

    def submit_and_see() -> list[Any]:
        with _silent(2) as silent, ExitStack() as taken:
            ids = []
            for url, server in silent:
                ids.append(api.submit("0" * 100_000, Webhook_Url=url))  # its body has it twice
                taken.enter_context(server.accept()[0])
            ids.append(api.submit("0", Webhook_Url=receiver.url))
            _settled(api, ids[-1])
            eventually(lambda: _webhook(api, ids[0])["attempts"], "the first gives way")
            return [_webhook(api, id_)["attempts"] for id_ in ids]

    [cut], others, [told] = await asyncio.to_thread(submit_and_see)
    stop.set()
    await running
    await deliveries.close()
    assert 0.5 <= cut["seconds"] < 5
    assert cut["error"].startswith("It did not answer within ")
    assert others == [], "one was enough"
    assert (told["status"], told["at"] > cut["at"]) == (204, True)


def test_slow_receiver_is_waited_for(processes: Processes, api: Api, receiver: Receiver) -> None:
    def answer(_: int) -> tuple[int, dict[str, str]]:
        time.sleep(2.5)
        return 204, {}

    receiver.answer = answer
    processes.worker(**SETTINGS)
    _deliverer(processes)
    settled = _settled(api, api.submit("0", Webhook_Url=receiver.url))
    assert [attempt["status"] for attempt in settled["attempts"]] == [204]


BAD = [
    ("", "Webhook-Url must be like https://"),
    ("nonsense", "Webhook-Url must be like https://"),
    ("ftp://example.com", "Webhook-Url must be like https://"),
    ("https://example.com/" + "x" * 10_000, "Webhook-Url must be like https://"),
    ("https://user:password@example.com/", "Webhook-Url must be like https://"),
    ("https://10.0.0.1/", "Webhook-Url must lead to a public address"),
    ("https://[::1]/", "Webhook-Url must lead to a public address"),
    ("http://169.254.169.254/latest/meta-data", "Webhook-Url must lead to a public address"),
    ("http://93.184.216.34/", "Webhook-Url must begin with https://"),
]


@pytest.mark.parametrize(("url", "says"), BAD)
def test_forbidden_urls_are_refused_at_once(slow_hooks: Api, url: str, says: str) -> None:
    answer = slow_hooks.post("x", Async_Mode="true", Webhook_Url=url)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(says)


@pytest.fixture(scope="session")
def slow_hooks(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api that takes webhooks, for what it refuses."""
    with Processes(tmp_path_factory.mktemp("hooks"), f"{valkey}?db=4", Forked) as started:
        yield started.api(webhook_secrets=SECRET)


def test_a_webhook_needs_a_queue_and_a_secret(slow_hooks: Api, served: Api) -> None:
    url = "https://93.184.216.34/"
    assert "add Async-Mode: true" in slow_hooks.post("x", Webhook_Url=url).json()["error"]
    assert slow_hooks.post("x", Webhook_Url=url).status_code == 400
    refused = served.post("x", Async_Mode="true", Webhook_Url=url)
    assert refused.status_code == 400
    assert "PREDICTOR_WEBHOOK_SECRETS" in refused.json()["error"]
    for id_ in ("unknown", "no.id"):
        answer = served.client.get(f"/predict/{id_}/webhook")
        assert answer.status_code == 404
        assert json.loads(answer.text)["error"].startswith("There is no webhook")
