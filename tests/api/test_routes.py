import gzip
import hashlib
import json
import re
import socket
import threading
import time
from typing import Any

import httpx
import pytest
import redis

from predictor.store.scripts import script
from tests.processes import Api, Processes, eventually

UNKNOWN = '{"error":"Prediction ID not found."}'


def test_sync_prediction(served: Api) -> None:
    answer = served.predict("Sample input data for the model")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["input", "result"]
    assert body["input"] == "Sample input data for the model"
    assert re.fullmatch(r"\d{4,5}", body["result"])
    assert 1000 <= int(body["result"]) <= 20000


def test_async_prediction(served: Api) -> None:
    answer = served.client.post("/predict", json={"input": "ü"}, headers={"Async-Mode": "true"})
    body = answer.json()
    id_ = body["prediction_id"]
    assert answer.status_code == 202
    assert body == {
        "message": "Request received. Processing asynchronously.",
        "prediction_id": id_,
    }
    assert answer.headers["location"] == f"/predict/{id_}"
    assert int(answer.headers["retry-after"]) >= 1
    done = served.outcome(id_)
    assert done.status_code == 200
    assert list(done.json()) == ["prediction_id", "output"]
    assert done.json()["prediction_id"] == id_
    assert done.json()["output"]["input"] == "ü"
    assert 1000 <= int(done.json()["output"]["result"]) <= 20000
    assert served.read(id_).content == done.content, "a result does not change"


def test_pending_prediction(processes: Processes, api: Api) -> None:
    answer = api.read(api.submit("x"))
    assert answer.status_code == 202
    assert answer.text == '{"error":"Prediction is still being processed."}'
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["cache-control"] == "no-store"


def _with_modes(served: Api, values: list[bytes]) -> tuple[int, str]:
    modes = b"".join(b"Async-Mode:%b\r\n" % value for value in values)
    head = b"POST /predict HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: 14"
    return served.raw(head % modes, b'{"input": "a"}')


@pytest.mark.parametrize(
    "values", [[b"true"], [b"TRUE"], [b"  True  "], [b"\ttrue"], [b"true", b" TRUE "]]
)
def test_async_mode_true_is_case_insensitive(served: Api, values: list[bytes]) -> None:
    assert _with_modes(served, values)[0] == 202


@pytest.mark.parametrize("values", [[], [b"false"], [b"False"], [b" FALSE "], [b"false", b"False"]])
def test_async_mode_false_is_case_insensitive(served: Api, values: list[bytes]) -> None:
    assert _with_modes(served, values)[0] == 200


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"yes"],
        [b"1"],
        [b"true,false"],
        [b"true, true"],
        [b"tru\xe9"],
        [b"true", b"false"],
        [b"false", b"maybe"],
        [b"x" * 10_000],
    ],
)
def test_an_invalid_async_mode_is_rejected(served: Api, values: list[bytes]) -> None:
    status, body = _with_modes(served, values)
    assert status == 400
    assert "Async-Mode" in json.loads(body)["error"]
    assert len(body) < 200


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "not valid JSON"),
    (b"{", 400, "not valid JSON"),
    (b'{"input": "a"} x', 400, "not valid JSON"),
    (b"input=a", 400, "not valid JSON"),
    (b"{'input': 'a'}", 400, "not valid JSON"),
    (b'{"input": "\xff"}', 400, "not valid JSON"),
    ('{"input": "é"}'.encode("latin-1"), 400, "not valid JSON"),
    ('{"input": "é"}'.encode("utf-16"), 400, "not valid JSON"),
    (b'\xef\xbb\xbf{"input": "a"}', 400, "not valid JSON"),
    (b'{"input": "\\ud800"}', 400, "not valid JSON"),
    (b'{"input": "\\udc00\\ud800"}', 400, "not valid JSON"),
    (b'{"input": "a\nb"}', 400, "not valid JSON"),
    (b'{"input": ' + b"1" * 5000 + b"}", 400, "not valid JSON"),
    (b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "not valid JSON"),
    (b"[" * 100_000, 400, "not valid JSON"),
    (b"\x1f\x8b\x08\x00", 400, "not valid JSON"),
    (b'{"input": NaN}', 400, "not valid JSON"),
    (b'{"input": 1e999}', 400, "not valid JSON"),
    (b'{"input": 3}', 422, "'input' must be a string"),
    (b'{"input": null}', 422, "'input' must be a string"),
    (b'{"input": ["a"]}', 422, "'input' must be a string"),
    (b'{"input": {"input": "a"}}', 422, "'input' must be a string"),
    (b"{}", 422, "'input' is missing"),
    (b'{"Input": "a"}', 422, "'input' is missing"),
    (b'{"input": "a", "inptu": "b"}', 422, "'inptu' is not known"),
    (b'{"input": "a", "' + b"x" * 5000 + b'": "b"}', 422, "is not known"),
    (b"[]", 422, "must be an object"),
    (b'"a"', 422, "must be an object"),
    (b"null", 422, "must be an object"),
]


@pytest.mark.parametrize("mode", ["true", "false"])
@pytest.mark.parametrize(("body", "status", "says"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_an_invalid_body_is_rejected_with_the_reason(
    served: Api, body: bytes, status: int, says: str, mode: str
) -> None:
    headers = {"Content-Type": "application/json", "Async-Mode": mode}
    answer = served.client.post("/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert says in answer.json()["error"]
    assert len(answer.text) < 400


@pytest.mark.parametrize("text", ["", "\0", "\U0001f600", "</script>", '"', "x" * 1_000_000])
def test_any_text_is_a_valid_input(served: Api, text: str) -> None:
    assert served.predict(text).json()["input"] == text
    assert served.outcome(served.submit(text)).json()["output"]["input"] == text


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/JSON; charset=utf-8", "application/x.y+json"]
)
def test_media_types_of_json(served: Api, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    answer = served.client.post("/predict", content=b'{"input": "a"}', headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json", "a/b"]
)
def test_other_media_types_are_rejected(served: Api, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type is not None else {}
    answer = served.client.post("/predict", content=b'{"input": "a"}', headers=headers)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]


def test_a_compressed_body_is_refused(served: Api) -> None:
    body = gzip.compress(b'{"input": "a"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = served.client.post("/predict", content=body, headers=headers)
    assert (answer.status_code, "Content-Encoding" in answer.text) == (415, True)


@pytest.mark.parametrize(("more", "length"), [("Expect: 100-continue", 2**21), ("X: x", 2**30)])
def test_a_body_that_is_far_too_large_is_refused_before_it_is_sent(
    served: Api, more: str, length: int
) -> None:
    lines = ("POST /predict HTTP/1.1", "Host: x", "Content-Type: application/json", more)
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("with_length", [True, False])
def test_a_too_large_body_is_rejected(processes: Processes, with_length: bool) -> None:
    api = processes.api(max_body=1000, mock_delay=0)
    fits = b'{"input": "%b"}' % (b"x" * 987)
    assert len(fits) == 1000

    def send(body: bytes) -> httpx.Response:
        content: Any = body if with_length else (bytes([byte]) for byte in body)
        headers = {"Content-Type": "application/json"}
        return api.client.post("/predict", content=content, headers=headers)

    assert send(fits).status_code == 200
    answer = send(fits.replace(b"xx", b"xxx", 1))
    assert answer.status_code == 413
    assert answer.json() == {"error": "The body is larger than 1000 bytes (PREDICTOR_MAX_BODY)."}
    assert send(fits).status_code == 200, "the next request is served"


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "9" * 5000])
def test_an_invalid_content_length_is_rejected(served: Api, length: str) -> None:
    request = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw:
        raw.sendall(request.encode() + b'{"input": "a"}')
        raw.shutdown(socket.SHUT_WR)
        status = raw.recv(100).split()[1:2]
    assert status in ([], [b"400"], [b"413"])


IDS = [
    *("x" * 65, "a%20b", "a%00b", "a%0d%0ab", "%ff", "%e2%82%ac", "*", "arq:job:x", "a/b", "a%2fb"),
    *("..%2f..", "abc%20", "{}", "%7b%7d", "a?b", "%F0%9F%98%80", "%"),
    "",
]


@pytest.mark.parametrize("id_", ["abc123", *IDS])
def test_a_malformed_id_is_unknown(served: Api, id_: str) -> None:
    assert served.raw(f"GET /predict/{id_} HTTP/1.1".encode()) == (404, UNKNOWN)


def test_a_malformed_id_never_reaches_the_store(processes: Processes) -> None:
    api = processes.api(redis_url="redis://127.0.0.1:1")
    assert api.read("abc123").status_code == 503
    for id_ in ("a b", "x" * 65, "a/b"):
        assert api.read(id_).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nothing", 404, "nothing at this path"),
        ("GET", "/page", 404, "nothing at this path"),
        ("PUT", "/predict", 405, "PUT is not allowed here; use POST."),
        ("PUT", "/page/page.js", 405, "PUT is not allowed here; use GET, HEAD."),
        ("GET", "/predict", 405, "GET is not allowed here; use POST."),
        ("PUT", "/predict/abc123", 405, "PUT is not allowed here; use DELETE, GET."),
        ("DELETE", "/predict/abc123/webhook", 405, "use GET, POST."),
        ("POST", "/health/live", 405, "POST is not allowed here; use GET, HEAD."),
    ],
)
def test_wrong_paths_and_methods(
    served: Api, method: str, path: str, status: int, says: str
) -> None:
    answer = served.client.request(method, path)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    if status == 405:
        assert says.endswith(f"use {answer.headers['allow']}.")


FAILURES = {
    "refused": (422, "The text must not be 'refused'."),
    "exception": (500, "The model failed on this input."),
    "system exit": (500, "The model failed on this input."),
    "own class": (500, "The model failed on this input."),
}


@pytest.mark.parametrize("name", ["predict", "predict_in_thread"])
def test_a_failure_has_the_same_code_in_both_modes(processes: Processes, name: str) -> None:
    api = processes.api(model=f"tests.models.raises:{name}")
    worker = processes.worker(model=f"tests.models.raises:{name}")
    for text, (status, message) in FAILURES.items():
        sync = api.predict(text)
        assert (sync.status_code, sync.json()) == (status, {"error": message})
        id_ = api.submit(text)
        late = api.outcome(id_)
        assert late.status_code == status
        assert late.json() == {"error": message, "prediction_id": id_}
        # What the model did wrong is in the log alone; a refused input is no fault of it.
        if status == 500:
            eventually(lambda: "Traceback" in worker.output, "the worker's log")
        for log in (api.process.output, worker.output):
            assert ("Traceback" in log) == (status == 500)
    assert api.predict("fine").status_code == 200
    assert api.outcome(api.submit("fine")).status_code == 200


def test_running_out_of_time_is_504_in_both_modes(processes: Processes) -> None:
    settings = {"model": "tests.models.slow:predict", "timeout": 0.2}
    api = processes.api(**settings)
    worker = processes.worker(**settings)
    assert api.predict("5").status_code == 504
    late = api.outcome(api.submit("5"))
    assert late.status_code == 504
    assert late.json()["error"] == "The prediction ran out of time (0.2 s)."
    assert "Traceback" not in worker.output


def test_waiting_too_long_in_the_queue_is_504(processes: Processes, store: "redis.Redis") -> None:
    api = processes.api(queue_ttl=0.2)
    id_ = api.submit("x")
    assert api.outcome(id_).status_code == 504
    said = api.read(id_).json()
    processes.worker()
    eventually(lambda: store.exists(f"arq:result:{id_}"), "the worker's word on it")
    assert api.read(id_).json() == said
    assert api.outcome(id_).json()["error"] == (
        "The prediction waited too long in the queue and was not run."
    )


def test_a_result_is_kept_for_its_time_to_live(processes: Processes, api: Api) -> None:
    processes.worker(mock_delay=0, result_ttl=2.0)
    id_ = api.submit("x")
    assert api.outcome(id_).status_code == 200
    eventually(lambda: api.read(id_).text == UNKNOWN, "the end of the result")


def test_without_a_store_sync_works_and_async_says_why_not(processes: Processes) -> None:
    api = processes.api(redis_url="redis://127.0.0.1:1", mock_delay=0)
    assert api.predict("x").status_code == 200
    assert api.client.get("/health/live").status_code == 200
    for answer in (
        api.client.post("/predict", json={"input": "x"}, headers={"Async-Mode": "true"}),
        api.read("abc123"),
        api.client.get("/health/ready"),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {"error": "The store cannot be used (ConnectionError); try again."}


def test_health(served: Api) -> None:
    assert served.client.get("/health/live").json() == {"status": "live"}
    assert served.client.get("/health/ready").json() == {"status": "ready"}


def test_a_disconnect_within_a_body_does_no_harm(served: Api) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw:
        raw.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"input'
        )
    assert served.predict("x").status_code == 200
    assert "Traceback" not in served.process.output


def test_one_call_to_the_store_for_a_submit_and_one_for_a_read(
    processes: Processes, api: Api, store: "redis.Redis"
) -> None:
    api.read(api.submit("to connect, and load the scripts"))
    with store.monitor() as monitor:
        seen: list[dict[str, Any]] = []
        done = threading.Event()

        def watch() -> None:
            for command in monitor.listen():
                if "the end" in command["command"]:
                    break
                # Not what scripts call, nor what other processes do in other databases.
                if command["client_type"] != "lua" and command["db"] == 1:
                    seen.append(command)
            done.set()

        threading.Thread(target=watch, daemon=True).start()
        id_ = api.submit("counted")
        api.read(id_)
        store.echo("the end")
        assert done.wait(5)
    regular = hashlib.sha1(script("expire").encode()).hexdigest()  # the api runs it each second
    texts = [command["command"] for command in seen if regular not in command["command"]]
    calls = [text.split()[0].upper() for text in texts]
    assert [call for call in calls if call not in {"SELECT", "CLIENT", "HELLO"}] == [
        "EVALSHA",
        "EVALSHA",
    ]


def test_requests_do_not_wait_for_each_other(processes: Processes) -> None:
    api = processes.api(model="tests.models.slow:predict_in_thread")
    started = time.monotonic()
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(api.predict("0.5"))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert time.monotonic() - started < 2


def test_the_log_shows_neither_inputs_nor_passwords(processes: Processes) -> None:
    api = processes.api(mock_delay=0, log_level="debug")
    worker = processes.worker(mock_delay=0, log_level="debug")
    api.predict("sesame")
    api.outcome(api.submit("sesame"))
    assert "sesame" not in api.process.output + worker.output


def test_logs_for_machines_are_json(processes: Processes) -> None:
    api = processes.api(log_format="json", model="tests.models.raises:predict")
    api.predict("exception")
    records = [json.loads(line) for line in api.process.output.splitlines()]
    assert any("RuntimeError" in record.get("exc_info", "") for record in records)
