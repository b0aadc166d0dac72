"""What clients and operators can do to the api. The numbers are the rows of the fault matrix."""

import signal
import socket
import threading
import time

import pytest

from tests.faults.conftest import Farm
from tests.processes import Api

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("trickle", [False, True])
def test_row_28_a_body_that_stalls_or_trickles(served: Api, trickle: bool) -> None:
    """Closed within fifteen seconds, and others are served meanwhile."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as slow:
        slow.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"input": "')
        slow.settimeout(1)
        answer = b""
        while not answer:
            assert time.monotonic() - began < 15
            assert served.predict("x").status_code == 200
            try:
                answer = slow.recv(65536)
            except TimeoutError:
                if trickle:
                    slow.sendall(b"x")
    assert b" 408 " in answer.splitlines()[0]
    assert b'{"error":"The body did not arrive in time; send it again."}' in answer


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
