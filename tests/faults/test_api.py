"""What clients and operators can do to the api. The numbers are the rows of the fault matrix."""

import select
import signal
import socket
import threading
import time
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Farm
from tests.processes import Api, Processes, eventually

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_row_28_bodies_that_stall_and_that_trickle(served: Api) -> None:
    """Closed within fifteen seconds, and others are served meanwhile."""
    began = time.monotonic()
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(2)]
    for connection in slow:
        connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"input": "')
    stalling, trickling = slow
    while not select.select(slow, [], [], 0.5)[0]:
        assert time.monotonic() - began < 15
        trickling.sendall(b"x")
        assert served.predict("x").status_code == 200
    for connection in (stalling, trickling):
        with connection:
            answer = b"".join(iter(lambda: connection.recv(65536), b""))  # noqa: B023
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'{"error":"The body did not arrive in time; send it again."}')
    assert time.monotonic() - began < 15


def test_row_28_a_client_that_never_reads(served: Api) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as deaf:
        body = b'{"input": "%b"}' % (b"x" * 500_000)
        request = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        deaf.settimeout(0.5)
        try:
            for _ in range(20):
                deaf.sendall(request)
        except TimeoutError:
            pass
        assert served.predict("x").status_code == 200


def test_row_30_sigterm_under_load(farm: Farm) -> None:
    """What was begun is answered, what comes later is refused; nothing is cut off."""
    api = farm.processes.api(model="tests.models.slow:predict", concurrency=50)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(api.predict("1").status_code))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # so that all have been begun
    api.process.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 10
    assert api.process.wait() in {0, -signal.SIGTERM}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", api.port))


def test_what_does_not_end_while_the_server_stops_is_refused(farm: Farm) -> None:
    api = farm.processes.api(
        "--timeout-graceful-shutdown", "1", model="tests.models.slow:predict", timeout=30
    )
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(api.predict(f"20 {farm.starts_file}")))
    thread.start()
    eventually(farm.starts, "its start")
    api.process.signal(signal.SIGTERM)
    thread.join()
    (answer,) = answers
    assert answer.status_code == 503
    assert answer.json() == {"error": "The service stops before this has ended; send it again."}
    assert "Traceback" not in api.process.output


def test_a_small_body_that_would_be_checked_for_hours(processes: Processes) -> None:
    """Each of its levels looks like two types, each of which contains the next level."""
    api = processes.api(model="tests.models.recursive:predict")
    tree: Any = 1
    for _ in range(60):
        tree = {"left": tree}
    for mode in ("true", "false"):
        given = {"Async-Mode": mode}
        answer = api.client.post("/predict", json={"input": tree}, headers=given, timeout=10)
        assert answer.status_code == 422
        assert "Field 'input' takes too long to check" in answer.json()["error"]
    answer = api.client.post("/predict", json={"input": {"left": {"left": 1}}})
    assert answer.json()["result"] == "Sum"
