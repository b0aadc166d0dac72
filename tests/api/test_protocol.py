"""The HTTP edge, by raw sockets: what clients send that no library would, or do not read."""

import contextlib
import itertools
import json
import re
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.processes import BIN, UNMEASURED, Api, Forked, Processes, eventually, free_port

HASTY = ("--http", "tests.api.hasty:Protocol")
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"input":"0"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
POST = HEAD + LENGTH + b"\r\n" + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"d\r\n%b\r\n0\r\n\r\n" % BODY


@pytest.fixture(scope="session")
def hasty(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An api whose times are short."""
    folder = tmp_path_factory.mktemp("hasty")
    with Processes(folder, f"{valkey}?db=4", Forked, UNMEASURED) as started:
        api = started.api(*HASTY, model="tests.models.large:predict", max_body=200_000)
        api.client.get("/health/ready")  # its connection to the store is not counted as a client's
        yield api


def _connect(api: Api, window: int = 0) -> socket.socket:
    """`window`: bytes that are received before somebody reads them."""
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(20)
    client.connect(("127.0.0.1", api.port))
    return client


def _rest(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def _ask(api: Api, request: bytes) -> bytes:
    with _connect(api) as client:
        client.sendall(request)
        return _rest(client)


def _statuses(answers: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


def _error(answer: bytes, status: int) -> str:
    """The one error that all of `answer` is."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert _statuses(answer) == [status], answer[:500]
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert b"\r\nconnection: close" in head
    assert b"\r\ndate: " in head
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}(\r|$)", head)
    error = json.loads(body)
    assert list(error) == ["error"]
    return str(error["error"])


MALFORMED = {
    "length, then chunked": HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunked, then length": HEAD + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "two lengths": HEAD + LENGTH + b"Content-Length: 14\r\n\r\n" + BODY,
    "the same length twice": HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
    **{
        f"length {length!r}": HEAD + b"Content-Length:" + length + b"\r\n\r\n" + BODY
        for length in (b"", b" +13", b" 13,13", b" 1 3", b" 0xd", b" -1", b" " + b"9" * 23)
    },
    **{
        f"chunk {chunk!r}": CHUNKED + chunk + BODY + b"\r\n0\r\n\r\n"
        for chunk in (
            *(b"xyz\r\n", b"-1\r\n", b"0xd\r\n", b" d\r\n", b"d \r\n", b"\r\n", b"c\r\n"),
            *(b"d\n", b"d;a\n", b"f" * 17 + b"\r\n"),
        )
    },
    "chunk that does not end": CHUNKED + b"d\r\n" + BODY + b"0\r\n\r\n",
    **{
        f"encoding {encoding!r}": HEAD + b"Transfer-Encoding:" + encoding + b"\r\n\r\n" + CHUNKS
        for encoding in (
            *(b" chunked, identity", b" identity", b" xchunked", b" gzip", b" \x0bchunked"),
            b" chunked\r\nTransfer-Encoding: chunked",
            b" chunked\r\nTransfer-Encoding: identity",
            b" identity\r\nTransfer-Encoding: chunked",
            b" gzip, chunked",
        )
    },
    "empty encoding": HEAD + b"Transfer-Encoding:\r\n" + LENGTH + b"\r\n" + BODY,
    "folded line": LIVE.replace(b": x", b": x\r\n y"),
    "bare LF": LIVE.replace(b"\r\n", b"\n"),
    "bare LF after a header": LIVE.replace(b"x\r\n", b"x\nA: b\r\n"),
    "bare LF at the end": LIVE[:-2] + b"\n",
    "bare CR": LIVE.replace(b": x", b": x\ry"),
    "CR CR LF": LIVE.replace(b": x", b": x\r"),
    "no Host": LIVE.replace(b"Host", b"Hosts"),
    "two Hosts": LIVE.replace(b"Host", b"Host: y\r\nHost"),
    "space before colon": HEAD + b"Content-Length : 13\r\n\r\n" + BODY,
    "space before a name": LIVE.replace(b"Host", b" Host"),
    "no colon": LIVE.replace(b"Host:", b"Host"),
    "NUL": LIVE.replace(b": x", b": x\0"),
    "version": LIVE.replace(b"1.1", b"1.10"),
    "method": LIVE.lower(),
    "path": LIVE.replace(b"/health", b"\xff"),
    "path of a proxy": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: x\r\n\r\n" + CHUNKS,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_with_all_that_follows(served: Api, name: str) -> None:
    answer = _ask(served, MALFORMED[name] + LIVE)
    assert _error(answer, 400).startswith("Malformed HTTP: ")


ENDLESS = {
    "headers": (LIVE[:-2], b"A: b\r\n"),
    "header": (LIVE[:-2] + b"A: ", b"x" * 1000),
    "name": (LIVE[:-2], b"x" * 1000),
    "url": (b"GET /", b"x" * 1000),
    "trailers": (CHUNKED + CHUNKS[:-2], b"A: b\r\n"),
    "trailer": (CHUNKED + CHUNKS[:-2] + b"A: ", b"x" * 1000),
    "chunk extension": (CHUNKED + b"d;", b"x" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_431(hasty: Api, name: str) -> None:
    start, more = ENDLESS[name]
    with _connect(hasty) as client:
        client.sendall(start + more * (60_000 // len(more)))
        error = _error(_rest(client), 431)
        assert error in {
            "Request line and headers may have 32768 bytes in all.",
            "A request may have 128 headers.",
        }
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 2**30:
                sent += client.send(more * 100)
        assert sent < 2**30, "and then it is closed"


def test_a_head_of_almost_all_that_is_allowed(served: Api) -> None:
    lines = b"".join(b"A%d: %b\r\n" % (n, b"x" * 290) for n in range(100))
    request = POST.replace(b"Host", lines + b"Cookie: %b\r\nHost" % (b"x" * 2000))
    assert 31_000 < len(request) < 32_768
    with _connect(served) as client:
        for at in range(0, len(request), 5_000):
            client.sendall(request[at : at + 5_000])
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def _named(request: bytes, name: object) -> bytes:
    return request.replace(b"Host", b"X-Request-ID: %b\r\nHost" % str(name).encode())


def _names(answers: bytes) -> list[int]:
    return [int(name) for name in re.findall(rb"x-request-id: (\d+)\r\n", answers)]


def test_requests_sent_ahead_are_all_answered_in_order(api: Api) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost"
    large = b'{"input":"%b"}' % (b"x" * 90_000)
    kinds = [
        *(LIVE, POST, CHUNKED + CHUNKS, POST.replace(b"Host", upgrade)),
        *(CHUNKED + CHUNKS[:-2] + b"A: b\r\n\r\n", b"\r\n\r\n" + LIVE),
        LIVE.replace(b"GET", b"HEAD"),
        HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large,
        CHUNKED + b"%x\r\n%b\r\n" % (len(large), large) + b"0\r\n\r\n",
    ]
    requests = [_named(kind, n) for n, kind in enumerate(kinds * 20)]
    last = _named(LIVE.replace(b"Host", b"Connection: close\r\nHost"), len(requests))
    with _connect(api) as client:
        sender = threading.Thread(target=client.sendall, args=(b"".join([*requests, last, LIVE]),))
        sender.start()
        answers = _rest(client)
        sender.join()
    assert _statuses(answers) == [200] * (len(requests) + 1)
    assert _names(answers) == list(range(len(requests) + 1))


def test_a_chunked_body_that_does_not_end_is_responded_to(api: Api) -> None:
    with _connect(api) as client:
        client.sendall(CHUNKED.replace(b"json", b"xml") + CHUNKS[:-2])
        assert client.recv(12) == b"HTTP/1.1 415"


def test_requests_sent_ahead_in_single_bytes(api: Api) -> None:
    with _connect(api) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CHUNKED + CHUNKS + POST + LIVE.replace(b"Host", b"Connection: close\r\nHost"):
            client.sendall(bytes([byte]))
        assert _statuses(_rest(client)) == [200] * 3


def test_trailers_are_no_headers(api: Api) -> None:
    trailers = b"X-Request-ID: 7\r\nX-Request-ID: 8\r\nAsync-Mode: maybe\r\n\r\n"
    answer = _ask(api, _named(CHUNKED, 5).replace(b"Host", b"Connection: close\r\nHost")
                  + CHUNKS[:-2] + trailers)  # fmt: skip
    assert _statuses(answer) == [200]
    assert _names(answer) == [5]


#: To the byte what they send; curl is asked itself, too, where there is one.
UPGRADES = {
    "Java": (
        b"POST /predict HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 13\r\n"
        b"Host: 127.0.0.1:9199\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"
        b"\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.15\r\n"
        b"Content-Type: application/json\r\n\r\n" + BODY
    ),
    "Java, a stream": (
        b"POST /predict HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: 127.0.0.1:9199\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
        b"Transfer-encoding: chunked\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.15\r\n"
        b"Content-Type: application/json\r\n\r\n" + CHUNKS
    ),
    "curl --http2": (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:9199\r\nUser-Agent: curl/7.88.1\r\nAccept: */*"
        b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
        b"Content-Length: 13\r\n\r\n" + BODY
    ),
    "TLS": POST.replace(b"Host", b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\nHost"),
    "websocket": LIVE.replace(
        b"Host",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost",
    ),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_is_ignored_and_the_body_kept(api: Api, name: str) -> None:
    last = LIVE.replace(b"Host", b"Connection: close\r\nHost")
    whole = _ask(api, UPGRADES[name] + last)
    assert _statuses(whole) == [200, 200], whole
    head, _, body = UPGRADES[name].partition(b"\r\n\r\n")
    with _connect(api) as client:
        for part in (head[:80], head[80:] + b"\r\n\r", b"\n", body, last):
            client.sendall(part)
            time.sleep(0.01)  # so that each is read alone
        assert _statuses(_rest(client)) == [200, 200]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl_with_http2(api: Api) -> None:
    command = ["curl", "-sS", "--http2", "--max-time", "10", "--json", BODY.decode()]
    url = f"http://127.0.0.1:{api.port}/predict"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["input"] == "0"


def _half_closed(api: Api, request: bytes) -> bytes:
    with _connect(api) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return _rest(client)


def _takes(seconds: str, request: bytes = POST) -> bytes:
    length = b": %d" % (len(BODY) - 1 + len(seconds))
    return request.replace(b'"0"', b'"%b"' % seconds.encode()).replace(b": 13", length)


OLD = POST.replace(b"1.1", b"1.0")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_sends_no_more_is_answered(processes: Processes, loop: str) -> None:
    api = processes.api("--loop", loop, model="tests.models.slow:predict", **UNMEASURED)
    answers: list[bytes] = []
    long = threading.Thread(target=lambda: answers.append(_half_closed(api, _takes("2.5"))))
    long.start()
    assert _statuses(_half_closed(api, LIVE)) == [200]
    assert _statuses(_half_closed(api, CHUNKED + CHUNKS)) == [200]
    assert _statuses(_half_closed(api, OLD)) == [200]
    assert _statuses(_half_closed(api, _takes("0.1") + POST + LIVE)) == [200, 200, 200]
    assert _statuses(_half_closed(api, POST + POST[:-1])) == [200], "the second is not whole"
    long.join()
    assert _statuses(answers[0]) == [102, 200]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_has_left_is_not_awaited(processes: Processes, loop: str) -> None:
    model = "tests.models.slow:predict"
    api = processes.api("--loop", loop, model=model, concurrency=3, **UNMEASURED)
    with contextlib.ExitStack() as stack:
        for request in (POST, OLD, POST):
            stack.enter_context(_connect(api)).sendall(_takes("30", request))
        eventually(lambda: api.predict("0").status_code == 503, "all slots are taken")

    def answers() -> set[bytes]:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_connect(api)) for _ in range(3)]
            for client in clients:
                client.sendall(_takes("0.1"))
            return {client.recv(12) for client in clients}

    eventually(lambda: answers() == {b"HTTP/1.1 200"}, "all slots are free", 8)


def test_silent_and_trickling_clients_are_cut(hasty: Api) -> None:
    partial = [LIVE[:n] for n in (1, 30, len(LIVE) - 1)] + [LIVE + b"G", b"\r\n\r\n"]
    with contextlib.ExitStack() as stack:
        silent, trickling, *others = (
            stack.enter_context(_connect(hasty)) for _ in range(2 + len(partial))
        )
        began = time.monotonic()
        for client, text in zip(others, partial, strict=True):
            client.sendall(text)
        trickling.sendall(b"GET / HTTP/1.1\r\nA: ")
        while not select.select([trickling], [], [], 0.05)[0]:
            assert time.monotonic() - began < 5
            trickling.sendall(b"x")
        late = "The headers did not arrive within 1 s."
        assert _error(_rest(trickling), 408) == late
        assert _rest(silent) == b""
        for client in others[:-2]:
            assert _error(_rest(client), 408) == late
        assert _statuses(_rest(others[-2])) == [200, 408]
        assert _rest(others[-1]) == b"", "empty lines are nothing"
        assert time.monotonic() - began < 10


def test_a_body_that_nobody_asked_for_is_not_awaited_for_ever(hasty: Api) -> None:
    unread = POST.replace(b"/predict", b"/nothing").replace(b": 13", b": 13000")
    with _connect(hasty) as client:
        client.sendall(unread)
        assert _statuses(_rest(client)) == [404]
    with _connect(hasty) as client:
        client.sendall(unread)
        client.sendall(b"x" * (13000 - 13) + LIVE.replace(b"Host", b"Connection: close\r\nHost"))
        assert _statuses(_rest(client)) == [404, 200], "but where it comes, the next is served"


def test_bodies_that_are_held_have_a_limit_together(processes: Processes) -> None:
    """Sixteen of the largest; small ones are received all the same."""
    api = processes.api(max_body=1_000_000)
    start = HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 990_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connect(api)) for _ in range(20)]
        for client in clients:
            client.sendall(start)
        refused = select.select(clients, [], [], 10)[0]
        eventually(lambda: len(select.select(clients, [], [], 0)[0]) == 4, "four are refused")
        assert b"503 Service Unavailable" in refused[0].recv(10_000)
        assert api.predict("x").status_code == 200
    eventually(lambda: api.predict("x" * 900_000).status_code == 200, "there is room again")


def _memory(api: Api) -> float:
    """MB that the api holds."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _connections(api: Api) -> int:
    """How many of clients the api has: who does not read would not see its own cut."""
    found = psutil.Process(api.process.pid).net_connections("tcp")
    return sum(each.status != "LISTEN" and each.laddr.port == api.port for each in found)


SIZE = 14_000_000
LARGE = HEAD + b"Content-Length: 20\r\n\r\n" + b'{"input":"%d"}' % SIZE


def test_who_does_not_read_a_large_answer_is_cut(hasty: Api) -> None:
    """And its memory is used again: how much of it goes back to the system is the allocator's."""
    eventually(lambda: _connections(hasty) == 0, "no other test has a connection")
    before, rounds = _memory(hasty), 5
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            deaf = [stack.enter_context(_connect(hasty, 4096)) for _ in range(6)]
            for client, close in zip(deaf, itertools.cycle([b"", b"Connection: close\r\n"])):
                client.sendall(LARGE.replace(b"Content-L", close + b"Content-L"))
            eventually(lambda: _connections(hasty) == 6, "all are served")
            eventually(lambda: _connections(hasty) == 0, "all are cut", 10)
    answered = rounds * 6 * SIZE / 1e6
    assert _memory(hasty) - before < 0.9 * answered  # one round takes up to 0.8 of it


def test_who_reads_slowly_gets_all_of_it(hasty: Api) -> None:
    with _connect(hasty, 65536) as client:
        client.sendall(LARGE)
        got = 0
        while got < SIZE:
            piece = client.recv(200_000)
            assert piece, f"cut after {got} bytes"
            got += len(piece)
            time.sleep(len(piece) / 4_000_000)


def test_who_does_not_read_events_is_cut(processes: Processes) -> None:
    settings: dict[str, Any] = {"model": "tests.models.large:talk"}
    api = processes.api(*HASTY, **settings)
    processes.worker(**settings)
    id_ = api.submit("150000")
    idle = _connections(api)
    with _connect(api, 4096) as client:
        client.sendall(LIVE.replace(b"/health/live", f"/predict/{id_}/events".encode()))
        eventually(lambda: _connections(api) > idle, "it follows")
        eventually(lambda: _connections(api) <= idle, "it is cut")
    assert api.outcome(id_).status_code == 200


def test_who_does_not_read_many_small_answers_is_cut(hasty: Api) -> None:
    requests = (HEAD + LENGTH.replace(b"13", b"18") + b'\r\n{"input":"100000"}') * 100
    idle = _connections(hasty)
    with _connect(hasty, 4096) as deaf:
        with contextlib.suppress(OSError):
            deaf.sendall(requests)
        eventually(lambda: _connections(hasty) > idle, "it is served")
        eventually(lambda: _connections(hasty) <= idle, "it is cut")


def test_the_api_takes_all_the_files_it_may(redis_url: str, tmp_path: Path) -> None:
    with Processes(tmp_path, redis_url) as processes:
        port, command = (
            free_port(),
            'ulimit -Sn 64; exec uvicorn predictor.main:app --port "$0" "$@"',
        )
        shell = processes.start(
            "/bin/sh", "-c", command, str(port),
            "--http", "predictor.api.protocol:Protocol", PATH=f"{BIN}:/usr/bin:/bin",
        )  # fmt: skip
        api = processes.client(port, shell)
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(_connect(api))
            assert api.client.get("/health/live").status_code == 200


def test_health_by_head(api: Api, processes: Processes) -> None:
    for path in ("/health/live", "/health/ready"):
        answer = api.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    without = processes.api(redis_url="redis://127.0.0.1:1")
    assert without.client.head("/health/ready").status_code == 503
    assert without.client.head("/health/live").status_code == 200


def test_uvicorn_serves_without_it(processes: Processes) -> None:
    api = processes.api("--http", "auto", mock_delay=0)
    assert api.predict("x").status_code == 200


def _attack(api: Api, start: bytes, more: bytes, count: int) -> Iterator[socket.socket]:
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", api.port), timeout=20)
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.send(start)
            for _ in range(4):
                client.send(more)
        yield client


ATTACKS: dict[str, tuple[bytes, bytes]] = {
    **{
        name: (ENDLESS[name][0], ENDLESS[name][1] * (16_000 // len(ENDLESS[name][1])))
        for name in ("headers", "header", "trailers")
    },
    "empty lines": (b"", b"\r\n" * 8_000),
    "requests": (b"", LIVE * 400),
    "predictions": (b"", POST * 100),
    "silent": (b"", b""),
    "trickling": (LIVE[:-2], b"x"),
}


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_hundreds_of_bad_clients_of_each_kind_harm_nobody(
    processes: Processes, pytestconfig: pytest.Config
) -> None:
    count: int = pytestconfig.getoption("--bad-clients")
    api = processes.api("--no-access-log", mock_delay=0)
    ask: list[Callable[[], httpx.Response]] = [
        lambda: api.predict("x"),
        lambda: api.client.get("/health/live"),
    ]

    def slowest(rounds: int) -> tuple[float, float]:
        """Seconds: the 99th percentile of normal requests, and the worst."""
        took = []
        for call in ask * rounds:
            began = time.monotonic()
            assert call().status_code == 200
            took.append(time.monotonic() - began)
        return sorted(took)[int(len(took) * 0.99)], max(took)

    slowest(50)
    usual, _ = slowest(200)
    idle, at_first = _connections(api), _memory(api)
    for name, (start, more) in ATTACKS.items():
        clients: list[socket.socket] = []
        took: list[float] = []
        before = _memory(api)
        for client in _attack(api, start, more, count):
            clients.append(client)
            if len(clients) % 50 == 0:
                took.append(slowest(1)[1])
        during, worst = slowest(100)[0], sorted(took)[-2]  # one may be the machine's
        grown = _memory(api) - before
        for client in clients:
            client.close()
        print(f"{name}: +{grown:.1f} MB, worst {worst:.3f} s, p99 {usual:.4f} → {during:.4f} s")
        assert grown < max(20, count / 20), name
        assert worst < 0.2, name
        assert during < max(2 * usual, 0.1), name  # 40 ms are the kernel's, now and then
    eventually(lambda: _connections(api) <= idle, "all are gone")
    assert _memory(api) - at_first < max(40, count / 10), "nor do all of them together"
