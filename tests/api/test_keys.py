"""Keys: who is let in, and that one name learns nothing of another's predictions."""

import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx
import pytest
import redis

from predictor.api.access import Keys
from predictor.errors import ConfigError
from predictor.prediction import owner_of
from tests.processes import UNMEASURED, Api, Forked, Processes, eventually, free_port
from tests.webhooks.test_deliverer import SETTINGS, Receiver

ALICE, NEW, BOB, OPERATOR = ("alice-" + "a" * 26, "new-" + "b" * 28, "bob-" + "c" * 28, "o" * 32)
KEYS = (
    f"alice:{ALICE},alice:{NEW},bob:sha256:{sha256(BOB.encode()).hexdigest()},operator:{OPERATOR}"
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNAUTHORIZED = '{"error":"Send a key of this API, with the header Authorization: Bearer."}'


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed(own_valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api with keys, whose queue nobody serves."""
    with Processes(tmp_path_factory.mktemp("keyed"), own_valkey, Forked) as started:
        settings: dict[str, Any] = {"api_keys": KEYS, "model": "tests.models.slow:predict"}
        yield started.api("--no-server-header", **SETTINGS | settings)


def _as(api: Api, key: str | None, method: str, path: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {}) | (bearer(key) if key else {})
    return api.client.request(method, path, headers=headers, **more)


def _submit(api: Api, key: str, text: str = "0", **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = _as(
        api, key, "POST", "/predict", json={"input": text}, headers={"Async-Mode": "true"} | named
    )
    assert answer.status_code == 202, answer.text
    id_: str = answer.json()["prediction_id"]
    return id_


def test_who_is_let_in(keyed: Api) -> None:
    for key in (ALICE, NEW, BOB):
        assert _as(keyed, key, "POST", "/predict", json={"input": "0"}).status_code == 200
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {ALICE}"}
        assert keyed.client.get("/openapi.json", headers=headers).status_code == 200


def test_who_is_not_let_in(keyed: Api) -> None:
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {ALICE}x")],
        [("Authorization", f"Bearer {ALICE} {ALICE}")],
        [("Authorization", f"Basic {ALICE}")],
        [("Authorization", ALICE)],
        [("Authorization", f"Bearer sha256:{sha256(BOB.encode()).hexdigest()}")],
        [("Authorization", f"Bearer {ALICE}"), ("Authorization", f"Bearer {ALICE}")],
        [("Authorization", f"Bearer {ALICE}"), ("Authorization", "Bearer x")],
    ]
    for method, path in [
        *(("POST", "/predict"), ("GET", "/predict/x"), ("DELETE", "/predict/x")),
        *(("GET", "/predict/x/events"), ("GET", "/docs"), ("GET", "/openapi.json")),
        *(("GET", "/static-offline-docs/swagger-ui.css"), ("GET", "/metrics"), ("GET", "/x")),
        *(("GET", "//health/live"), ("GET", "/healthx"), ("OPTIONS", "/predict"), ("PUT", "/page")),
    ]:
        for headers in wrong:
            answer = keyed.client.request(method, path, headers=headers)
            assert (answer.status_code, answer.text) == (401, UNAUTHORIZED), (path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_health_and_the_page_need_no_key(keyed: Api) -> None:
    for path in ("/health/live", "/health/ready", "/", "/page/page.js"):
        for key in (None, "wrong", ALICE):
            assert _as(keyed, key, "GET", path).status_code == 200


def test_who_has_the_only_key_reads_metrics_behind_a_proxy_too(processes: Processes) -> None:
    only = processes.api("--root-path", "/prefix", api_keys=f"alice:{ALICE}")
    assert _as(only, ALICE, "GET", "/metrics").status_code == 200
    assert only.client.get("/metrics").status_code == 401
    assert only.client.get("/health/live").status_code == 200
    assert only.client.get("/").status_code == 200


def test_only_the_operator_reads_metrics_of_several_names(keyed: Api, processes: Processes) -> None:
    assert _as(keyed, ALICE, "GET", "/metrics").status_code == 403
    assert _as(keyed, OPERATOR, "GET", "/metrics").status_code != 403
    single = processes.api(api_keys=f"alice:{ALICE}", public="metrics,docs")
    assert single.client.get("/metrics").status_code not in {401, 403}
    for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert single.client.get(path).status_code == 200
    document = single.client.get("/openapi.json").json()
    scheme: dict[str, list[str]] = {"HTTPBearer": []}
    assert document["paths"]["/predict"]["post"]["security"] == [scheme]
    assert document["paths"]["/predict/{prediction_id}/status"]["get"]["security"] == [scheme]
    assert "security" not in document["paths"]["/health/live"]["get"]


def test_a_body_without_a_key_is_not_read(keyed: Api) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", keyed.port), timeout=10) as client:
        client.sendall(head % 20_000_000)
        assert client.recv(12) == b"HTTP/1.1 401"


def _seen(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All of a response, but for what is of its moment."""
    headers = {k: v for k, v in answer.headers.items() if k not in {"date", "x-request-id"}}
    return answer.status_code, headers, answer.content


def test_another_names_prediction_is_an_unknown_one(keyed: Api, own_valkey: str) -> None:
    store = redis.Redis.from_url(own_valkey)

    def calls() -> int:
        stats: Any = store.info("commandstats")
        names = ("evalsha", "hgetall", "zscore", "zrangebyscore")  # others are pings
        count = Counter({name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names})
        # Once a second, expire.lua looks for what is late, and at the first of the queue.
        return count["evalsha"] + count["hgetall"] + count["zscore"] - 2 * count["zrangebyscore"]

    document = _as(keyed, ALICE, "GET", "/openapi.json").json()
    paths = [path for path in document["paths"] if "{" in path]
    assert len(paths) == 5
    hook = {"Webhook_Url": "http://127.0.0.1:1/x"}
    waiting, ended = (_submit(keyed, ALICE, Idempotency_Key=key, **hook) for key in "we")
    assert _as(keyed, ALICE, "POST", f"/predict/{ended}/cancel").status_code == 200
    unknown, own = "f" * len(waiting), owner_of("bob") + "f" * 32
    assert len(own) == len(waiting)
    headers = [{}, {"Prefer": "wait=1"}, {"Last-Event-ID": "1"}, {"Last-Event-ID": "x"}]
    for path in paths:
        for method in METHODS:
            for more in headers:
                seen, counts = [], []
                for id_ in (unknown, waiting, ended, own):
                    before = calls()
                    where = path.replace("{prediction_id}", id_)
                    seen.append(_seen(_as(keyed, BOB, method, where, headers=more)))
                    counts.append(calls() - before)
                assert seen == [seen[0]] * 4, (method, path, more)
                assert counts[0] == counts[1] == counts[2], (method, path, more)
    for id_ in (unknown, waiting, ended):
        before = calls()
        watched = _as(keyed, BOB, "GET", f"/events?id={id_}").text
        assert (
            watched.replace(id_, "")
            == 'event: status\ndata: {"prediction_id":"","status":"unknown"}\n\n'
        )
        assert calls() == before
    assert _as(keyed, NEW, "GET", f"/predict/{waiting}").status_code == 202
    assert _as(keyed, NEW, "GET", f"/predict/{ended}").status_code == 410
    assert _as(keyed, ALICE, "GET", f"/predict/{ended}/webhook").status_code == 200
    status = _as(keyed, ALICE, "GET", f"/predict/{waiting}/status").json()
    assert (status["position"], status["estimated_start"]) == (None, None)
    store.close()


def test_one_idempotency_key_of_two_names(keyed: Api) -> None:
    def post(number: int) -> httpx.Response:
        key, text = ((ALICE, "0.1"), (BOB, "0.2"))[number % 2]
        headers = {"Async-Mode": "true", "Idempotency-Key": "same"}
        return _as(keyed, key, "POST", "/predict", json={"input": text}, headers=headers)

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(post, range(40)))
    for name, mine in (("alice", answers[::2]), ("bob", answers[1::2])):
        assert {answer.status_code for answer in mine} == {202}
        (id_,) = {answer.json()["prediction_id"] for answer in mine}
        assert re.fullmatch(owner_of(name) + "[0-9a-f]{32}", id_)
        assert sum("idempotency-replayed" not in answer.headers for answer in mine) == 1


def test_predictions_of_both_modes_with_keys(processes: Processes) -> None:
    settings: dict[str, Any] = SETTINGS | {"api_keys": KEYS}
    api, queue = processes.api(**settings), processes.api(sync="queue", **settings)
    processes.start("python", "-m", "predictor.webhooks", **settings | UNMEASURED)
    processes.worker(**settings)
    receiver = Receiver()
    try:
        id_ = _submit(api, ALICE, Webhook_Url=receiver.url)
        done = _as(queue, ALICE, "GET", f"/predict/{id_}", headers={"Prefer": "wait=9"})
        assert done.json()["prediction_id"] == id_
        assert _as(queue, BOB, "POST", "/predict", json={"input": "0"}).status_code == 200
        assert "completed" in _as(api, NEW, "GET", f"/predict/{id_}/events").text
        eventually(lambda: receiver.told, "the webhook")
        assert id_.encode() in receiver.told[0][1]
    finally:
        receiver.close()
    assert not re.search("|".join((ALICE, NEW, BOB)), api.process.output + queue.process.output)


def test_with_keys_what_was_made_without_is_nobodys(processes: Processes) -> None:
    without, keyed = processes.api(), processes.api(api_keys=KEYS)
    id_ = without.submit("x")
    assert re.fullmatch("[0-9a-f]{32}", id_)
    for key in (ALICE, OPERATOR):
        assert _as(keyed, key, "GET", f"/predict/{id_}").status_code == 404


def test_names_that_cannot_be_told_apart_are_refused(processes: Processes) -> None:
    with pytest.raises(ConfigError, match=r"^PREDICTOR_API_KEYS: n41826 and n18622 would share"):
        Keys(f"n18622:{ALICE},n41826:{BOB}")
    with pytest.raises(ConfigError, match=r"^PREDICTOR_API_KEYS: bob has a key of another"):
        Keys(f"alice:{ALICE},bob:sha256:{sha256(ALICE.encode()).hexdigest()}")
    process = processes.start_api(free_port(), api_keys=f"alice:{ALICE},bob:{ALICE}")
    assert process.wait() == 78
    assert ALICE not in process.output


def test_the_client_sends_its_key(command: Processes, keyed: Api) -> None:
    where = {"url": f"http://127.0.0.1:{keyed.port}"}
    predict = command.start("predictor", "predict", "0", **where, api_key=NEW)
    assert (predict.wait(), predict.output) == (0, "0\n")
    refused = command.start("predictor", "predict", "0", **where, api_key="wrong")
    assert refused.wait() == 2
    assert refused.output == f"predictor: {UNAUTHORIZED[10:-2]}\n"


def test_listening_for_all_without_keys_is_warned_of(processes: Processes) -> None:
    warning = "PREDICTOR_API_KEYS is not set: whoever can reach 0.0.0.0"
    open_, closed = (processes.api("--host", host) for host in ("0.0.0.0", "127.0.0.1"))
    keyed = processes.api("--host", "0.0.0.0", api_keys=KEYS)
    eventually(lambda: warning in open_.process.output, "the warning")
    assert not re.search("PREDICTOR_API_KEYS", closed.process.output + keyed.process.output)
