"""One key, one prediction."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from tests.processes import Api, Processes


def test_the_same_key_and_body_are_the_same_prediction(slow: Api, tmp_path: Any) -> None:
    text = f"0.3 {tmp_path / 'starts'}"

    def post(**headers: str) -> Any:
        return slow.post(text, Idempotency_Key=str(tmp_path), **headers)

    first = post(Async_Mode="true")
    assert "idempotency-replayed" not in first.headers
    id_ = first.json()["prediction_id"]
    running = post(Async_Mode="true")
    assert running.status_code == 202
    assert running.json() == first.json()
    assert running.headers["idempotency-replayed"] == "true"
    sync = post()
    assert sync.status_code == 200
    assert sync.json() == {"input": text, "result": text}
    assert sync.headers["idempotency-replayed"] == "true"
    assert sync.headers["location"] == f"/predict/{id_}"
    assert post().content == sync.content
    assert post(Async_Mode="true").json()["prediction_id"] == id_
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


def test_the_same_key_with_another_body_is_refused(slow: Api, tmp_path: Any) -> None:
    key = str(tmp_path)
    assert slow.post("0", Idempotency_Key=key).status_code == 200
    for headers in ({}, {"Async_Mode": "true"}):
        answer = slow.post("0.0", Idempotency_Key=key, **headers)
        assert answer.status_code == 422
        assert answer.json() == {
            "error": "Header Idempotency-Key was used with another request before; use a new key."
        }


def test_json_and_a_text_that_looks_like_it_are_not_the_same(processes: Processes) -> None:
    api = processes.api(model="tests.models.callables:anything")
    for value, status in ((5, 202), ("\0005", 422), ("5", 422), (5, 202)):
        headers = {"Idempotency-Key": "key", "Async-Mode": "true"}
        answer = api.client.post("/predict", json={"input": value}, headers=headers)
        assert answer.status_code == status


def test_a_sync_request_with_a_key_waits_for_its_timeout(processes: Processes) -> None:
    settings = {"model": "tests.models.slow:predict", "timeout": 1}
    api, _ = processes.api(**settings), processes.worker(**settings)
    assert api.post("5", Idempotency_Key="key").status_code == 504


def test_a_failure_is_replayed_as_well(slow: Api, tmp_path: Any) -> None:
    answers = [slow.post("not a number", Idempotency_Key=str(tmp_path)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotency-replayed"] == "true"


def test_fifty_concurrent_requests_on_two_apis_are_one_prediction(
    processes: Processes, store: "redis.Redis"
) -> None:
    apis = [processes.api(), processes.api()]

    def post(number: int) -> Any:
        return apis[number % 2].post("x", Async_Mode="true", Idempotency_Key="key")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert len({answer.json()["prediction_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert store.zcard("arq:queue") == 1


def test_a_key_is_free_when_its_prediction_is_no_longer_known(slow: Api, tmp_path: Any) -> None:
    first = slow.post("0", Idempotency_Key=str(tmp_path))
    assert slow.client.delete(first.headers["location"]).status_code == 204
    second = slow.post("0.0", Idempotency_Key=str(tmp_path))
    assert second.status_code == 200
    assert second.headers["location"] != first.headers["location"]
