import asyncio
import re
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from predictor import __version__
from predictor.config import Config
from predictor.prediction import Attempt
from predictor.webhooks.sender import Sender
from predictor.webhooks.target import Allowed, check_target

Names = dict[str, list[str]]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OLD, NEW, OTHER = (f"whsec_{letter * 32}" for letter in "onx")
HERE = Config(webhook_allow="127.0.0.0/8").allowed_targets
REFUSED = "Webhook-Url must lead to a public address, or to one in PREDICTOR_WEBHOOK_ALLOW."
BODY = '{"output":"ä"}'.encode()


class Receiver:
    """Takes one request on each connection, and answers what the test wants."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.port = 0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (h.partition(": ") for h in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append((line, headers, body))
            await self._answer(reader, writer)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@asynccontextmanager
async def receiving(
    answer: bytes | Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    receiver = Receiver(write if isinstance(answer, bytes) else answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(receiver.accept(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls) as server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver
        await asyncio.gather(*tasks)


async def send(url: str, allowed: Allowed = HERE, limit: float = 5) -> Attempt:
    return await Sender(allowed, [OLD]).send(url, "id", BODY, asyncio.timeout(limit), {})


async def test_a_webhook_is_signed_with_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    began = time.time()
    async with receiving(b"HTTP/1.1 204 No Content\r\n\r\n") as receiver:
        attempt = await Sender(HERE, [OLD, NEW]).send(
            f"http://127.0.0.1:{receiver.port}/a?b=%2F", "id", BODY, asyncio.timeout(5), {}
        )
    assert (attempt.status, attempt.error) == (204, None)
    assert began <= attempt.at <= time.time()
    assert 0 < attempt.seconds < 5
    [(line, headers, body)] = receiver.requests
    assert line == "POST /a?b=%2F HTTP/1.1"
    assert body == BODY
    assert Webhook(OLD).verify(body, headers) == Webhook(NEW).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    for name in ("webhook-timestamp", "webhook-signature"):
        headers.pop(name)
    assert headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "user-agent": f"predictor/{__version__}",
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "webhook-id": "id",
    }


async def test_attempts_share_nothing_but_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    sender = Sender(HERE, [OLD])
    async with receiving(answer) as receiver:
        for now in (1000, 2000):
            monkeypatch.setattr(time, "time", lambda now=now: now + 0.9)
            await sender.send(
                f"http://127.0.0.1:{receiver.port}", "id", BODY, asyncio.timeout(5), {}
            )
    (_, first, _), (_, second, _) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1000", "2000")
    assert first["webhook-signature"] != second["webhook-signature"]
    assert "cookie" not in second


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ("200 OK\r\nContent-Length: 99999", 200, None),
        ("299 Fine", 299, None),
        ("103 Early\r\n\r\nHTTP/1.1 200 OK", 200, None),
        ("410 Gone", 410, "It answered 410: it wants no more."),
        ("404 Not Found", 404, "It answered 404."),
        ("599 \xff", 599, "It answered 599."),
        ("101 Other", None, "It did not answer in HTTP."),
        ("304 Not Modified", 304, "It answered 304."),
        ("200 OK\r\nno header", None, "It did not answer in HTTP."),
        ("2000 OK", None, "It did not answer in HTTP."),
        ("200 OK\r\na: " + "b" * 200_000, None, "It did not answer in HTTP."),
    ],
)
async def test_each_response(answer: str, status: int | None, error: str | None) -> None:
    async with receiving(f"HTTP/1.1 {answer}\r\n\r\n".encode("latin-1")) as receiver:
        attempt = await send(f"http://127.0.0.1:{receiver.port}")
    assert (attempt.status, attempt.error) == (status, error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n", b"\0" * 9999])
async def test_protocol_errors_are_failures(answer: bytes) -> None:
    async with receiving(answer) as receiver:
        attempt = await send(f"http://127.0.0.1:{receiver.port}")
    assert (attempt.status, attempt.error) == (None, "It did not answer in HTTP.")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as other:
        there = f"http://127.0.0.1:{other.port}"
        async with receiving(f"HTTP/1.1 {status} x\r\nLocation: {there}\r\n\r\n".encode()) as one:
            attempt = await send(f"http://127.0.0.1:{one.port}")
    assert attempt.error == f"It answered {status}; redirects are not followed."
    assert (attempt.status, other.requests) == (status, [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("9" * 5000, 86400),
        ("%a, %d %b %Y %H:%M:%S GMT", 500),
        ("%a %b %d %H:%M:%S %Y", 500),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Wed, 06 Nov 2999 08:49:37 GMT", 86400),
        *((text, None) for text in ("", "-1", "1.5", "soon", "1e3", "\xb2", "1, 2", "99 Foo 99")),
    ],
)
async def test_retry_after(text: str, seconds: int | None) -> None:
    text = time.strftime(text, time.gmtime(time.time() + 500))
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {text}\r\n\r\n".encode("latin-1")
    async with receiving(answer) as receiver:
        attempt = await send(f"http://127.0.0.1:{receiver.port}")
    assert attempt.status == 503
    assert attempt.retry_after == (seconds if seconds is None else pytest.approx(seconds, abs=60))


async def _says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\na: ")
    while not reader.at_eof():
        writer.write(b"b")
        await writer.drain()
        await asyncio.sleep(0.005)


async def _continues(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("answer", [_says_nothing, _trickles, _continues])
async def test_attempt_times_out(answer: Answer) -> None:
    async with receiving(answer) as receiver:
        attempt = await send(f"http://127.0.0.1:{receiver.port}", limit=0.3)
    assert re.fullmatch(r"It did not answer within 0\.\d+ s\.", attempt.error or "")
    assert attempt.status is None
    assert 0.2 < attempt.seconds < 1


async def test_response_body_is_not_read() -> None:
    written = 0

    async def pours(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while written < 2**27:
            writer.write(bytes(2**16))
            await writer.drain()
            written += 2**16

    async with receiving(pours) as receiver:
        attempt = await send(f"http://127.0.0.1:{receiver.port}")
    assert attempt.error is None
    assert written < 2**25  # what the buffers of two sockets take


async def test_each_attempt_checks_the_address_again(names: Names) -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as receiver:
        names["rebinds.example"] = ["8.8.8.8", "127.0.0.1"]
        url = await check_target(f"https://rebinds.example:{receiver.port}/", ())
        attempt = await send(url, ())
    assert attempt.error == REFUSED
    assert receiver.requests == []


async def test_the_checked_address_is_called(names: Names) -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as receiver:
        names["hooks.example"] = ["127.0.0.1", "8.8.8.8"]
        attempt = await send(f"http://hooks.example:{receiver.port}/")
    assert attempt.error is None
    assert receiver.requests[0][1]["host"] == f"hooks.example:{receiver.port}"
    assert names["hooks.example"] == ["8.8.8.8"]  # asked once


async def test_first_reachable_address_is_used(names: Names) -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as receiver:
        names["hooks.example"] = ["127.0.0.2 127.0.0.3 127.0.0.1"]
        assert (await send(f"http://hooks.example:{receiver.port}/")).error is None
    assert len(receiver.requests) == 1
    attempt = await send(f"http://hooks.example:{receiver.port}/")
    assert attempt.error == "It could not be connected to."


async def test_unexpected_errors_are_recorded(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    assert "cannot be found" in str((await send("http://unknown.example")).error)
    assert "must be like" in str((await send("no url")).error)
    assert "must begin with https" in str((await send("http://8.8.8.8")).error)
    assert caplog.text == ""
    limit = asyncio.timeout(5)
    attempt = await Sender(HERE, [OLD]).send("http://127.0.0.1", "id", b"\xff", limit, {})
    assert attempt.error == "Something went wrong here; the log says what."
    assert "UnicodeDecodeError" in caplog.text


async def test_cancellation_propagates() -> None:
    asked = asyncio.Event()

    async def asks(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with receiving(asks) as receiver:
        attempt = asyncio.create_task(send(f"http://127.0.0.1:{receiver.port}"))
        await asked.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt


async def test_https_requires_tls() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await send(f"https://127.0.0.1:{port}")).error == "It does not speak TLS."
        silent = await send(f"https://127.0.0.2:{port}")
    assert silent.error == "It could not be connected to."


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
async def test_the_certificate_must_name_the_host(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    names_it = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:hooks.example"]
    files = ["-keyout", key, "-out", certificate]
    openssl = await asyncio.create_subprocess_exec(*command.split(), *names_it, *files, stderr=-3)
    assert await openssl.wait() == 0
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    asked_for = []
    server.sni_callback = lambda _, name, __: asked_for.append(name)
    names.update({"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n", server) as receiver:
        with monkeypatch.context() as context:
            context.setenv("SSL_CERT_FILE", certificate)
            trusting = Sender(HERE, [OLD])
        good, other, address = [
            await trusting.send(
                f"https://{host}:{receiver.port}", "id", BODY, asyncio.timeout(5), {}
            )
            for host in ("hooks.example", "other.example", "127.0.0.1")
        ]
        stranger = await send(f"https://hooks.example:{receiver.port}")
    assert (good.status, good.error) == (200, None)
    assert "not valid for 'other.example'" in str(other.error)
    assert "not valid for '127.0.0.1'" in str(address.error)
    assert stranger.error == "Its certificate is not accepted: self-signed certificate."
    assert asked_for == ["hooks.example", "other.example", None, "hooks.example"]
    assert len(receiver.requests) == 1
