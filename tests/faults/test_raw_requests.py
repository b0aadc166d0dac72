"""Malformed, mutated, smuggled and random requests, over real sockets.

More of them: pytest tests/faults/test_raw_requests.py --raw-requests 100000 --raw-seed 1
"""

import asyncio
import collections
import itertools
import json
import re
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.raw import Requests
from tests.processes import Api, Processes, eventually

_AT_ONCE = 50
_HANG = 30.0  # seconds without an answer or an end
#: Endings that a request may ask for, such as with `Cancel-After: 1ms`.
_LATE = "The prediction "


def _responses(received: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and body of each; raises AssertionError for what is not HTTP."""
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*(?:\r\n|$)", head)
        assert line, received[:200]
        assert end, received[:200]
        status = int(line[1])
        length = re.search(rb"(?mi)^content-length: ([0-9]+)\r?$", head)
        if re.search(rb"(?mi)^transfer-encoding: chunked\r?$", head):
            body, _, received = rest.partition(b"0\r\n\r\n")
        elif length and not rest.startswith(b"HTTP/1.1 "):  # else it was a HEAD
            body, received = rest[: int(length[1])], rest[int(length[1]) :]
        else:
            body, received = b"", rest
        yield status, body


async def _exchange(port: int, pieces: list[bytes]) -> bytes:
    """All that is answered, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(_HANG):
            return await reader.read(-1)
    except (ConnectionError, OSError):  # refused while it was sent
        return b""
    finally:
        writer.transport.abort()


def _check(sent: bytes, received: bytes, seen: collections.Counter[int]) -> None:
    for status, body in _responses(received):
        seen[status] += 1
        error = ""
        if status >= 400 and body:
            error = json.loads(body)["error"]
        assert status < 500 or (status == 504 and error.startswith(_LATE)), (sent, received)
    seen[0] += not received


def test_nothing_that_is_sent_breaks_the_service(
    processes: Processes, request: pytest.FixtureRequest
) -> None:
    count = int(request.config.getoption("--raw-requests"))
    seed = int(request.config.getoption("--raw-seed"))
    settings = {"model": "tests.models.callables:anything", "concurrency": 1000, "queue_limit": 0}
    settings |= {"max_body": 60_000, "webhook_secrets": "whsec_" + "QUJD" * 11}
    api = processes.api("--no-access-log", **settings)
    worker = processes.worker(**settings)
    known = [api.submit("x", Idempotency_Key=f"k{number}") for number in range(20)]
    seen: collections.Counter[int] = collections.Counter()
    made = itertools.islice(Requests(seed, known), count)

    async def send() -> None:
        for pieces in made:  # shared by all of them
            try:
                received = await _exchange(api.port, pieces)
            except TimeoutError:
                raise AssertionError(f"no end within {_HANG} s: {pieces!r}") from None
            _check(b"".join(pieces), received, seen)

    async def send_all() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(send())

    began = time.monotonic()
    asyncio.run(send_all())
    print(f"{count} in {time.monotonic() - began:.0f} s: {dict(sorted(seen.items()))}")
    assert api.process.is_running
    _assert_well(api)
    assert worker.is_running
    for process in (api.process, worker):
        print(process.output.partition("Traceback")[2][:5000])
        assert "Traceback" not in process.output


def _assert_well(api: Api) -> None:
    assert api.client.get("/health/ready").status_code == 200
    assert api.outcome(api.submit("x")).status_code == 200
    process = psutil.Process(api.process.pid)
    eventually(lambda: process.num_fds() < 40, f"an end of all connections: {process.num_fds()}")
