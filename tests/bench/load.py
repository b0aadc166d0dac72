"""The load: HTTP clients that cost little, so that what is measured is the server."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_POLL = 0.005  # seconds between two reads of a pending prediction
_LATEST = 30.0  # seconds for one answer, or one prediction


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0 or not self._answer:
            return
        found = _LENGTH.search(self._received, 0, head)
        end = head + 4 + int(found[1] if found else 0)
        if len(self._received) >= end:
            status, body = int(self._received[9:12]), bytes(self._received[head + 4 : end])
            del self._received[:end]
            if not self._answer.done():
                self._answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self._answer, _LATEST)


def post(text: str, *headers: str) -> bytes:
    body = json.dumps({"input": text}).encode()
    head = ["POST /predict HTTP/1.1", "Host: bench", "Content-Type: application/json", *headers]
    head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def get(id_: str, *headers: str) -> bytes:
    head = [f"GET /predict/{id_} HTTP/1.1", "Host: bench", *headers]
    return "\r\n".join([*head, "", ""]).encode()


@dataclass
class Clients:
    """What many clients saw."""

    seconds: float
    latencies: list[float]  # of each prediction, in seconds, sorted

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def at(self, share: float) -> float:
        """The latency that this share of predictions does not exceed, in seconds."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


#: One prediction, from its request to its result.
Prediction = Callable[[Connection, str], Awaitable[None]]


async def synchronous(connection: Connection, text: str) -> None:
    status, body = await connection.ask(post(text))
    assert status == 200, body


async def waiting(connection: Connection, text: str) -> None:
    status, body = await connection.ask(post(text, "Prefer: wait=30"))
    assert status == 200, body


async def polling(connection: Connection, text: str) -> None:
    status, body = await connection.ask(post(text, "Async-Mode: true"))
    assert status == 202, body
    request, pause = get(json.loads(body)["prediction_id"]), 0.0
    latest = time.perf_counter() + _LATEST
    while status == 202 and time.perf_counter() < latest:
        await asyncio.sleep(pause)
        status, body = await connection.ask(request)
        pause = _POLL
    assert status == 200, body


async def run(
    port: int, predict: Prediction, clients: int, seconds: float, text: str = "hello"
) -> Clients:
    """What so many clients see that predict one after the other for so many seconds."""
    loop, latencies = asyncio.get_running_loop(), list[float]()
    deadline = time.perf_counter() + seconds

    async def one() -> None:
        transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        try:
            while (began := time.perf_counter()) < deadline:
                await predict(connection, text)
                latencies.append(time.perf_counter() - began)
        finally:
            transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return Clients(time.perf_counter() - began, sorted(latencies))
