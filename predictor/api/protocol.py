"""The HTTP edge (`uvicorn --http predictor.api.protocol:Protocol`): limits to what clients do."""

import asyncio
import math
import os
import random
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from predictor.api.headers import SECURITY
from predictor.api.responses import error_response
from predictor.logs import say_about

_HEAD_BYTES, _HEAD_SECONDS = 32 * 1024, 10.0  # of a request line and its headers, or of trailers
_HEADERS = 128  # of one request; a short one takes forty times its bytes
_READ_SIZE, _MAX_READ_SIZE = 8 * 1024, 256 * 1024  # bytes read at once; of a body
_MAX_AHEAD, _MAX_UNSENT = 4 * 1024, 16 * 1024  # bytes of the next request, and of a response
_READ_SECONDS, _READ_BYTES = 30.0, 3_000_000  # a client that reads less in so long is cut off
_FIRST_PROBE, _NEXT_PROBE = 2.0, 1.0  # seconds until a half-closed connection is probed
_LINGER = 2.0  # seconds that a refused client has to read the error, which a close could discard
_PAUSE = 0.002  # seconds, for each open connection, before a pipelined request: others come first
_END = b"\r\n\r\n"


class Protocol(asyncio.BufferedProtocol):
    """One connection. Reads little at once, except of a body: asyncio.Protocol reads 256 KiB."""

    _buffer = memoryview(bytearray(_MAX_READ_SIZE))  # shared: what is read is copied at once
    _small = _buffer[:_READ_SIZE]

    def __init__(self, **arguments: Any) -> None:
        self._http = _Http(**arguments)
        for event in ("connection_made", "connection_lost", "pause_writing", "resume_writing"):
            setattr(self, event, getattr(self._http, event))
        self.eof_received = self._http.eof_received  # type: ignore[method-assign]

    def get_buffer(self, _: int) -> memoryview:
        return self._buffer[: self._http.left] if self._http.left > _READ_SIZE else self._small

    def buffer_updated(self, nbytes: int) -> None:
        self._http.data_received(bytes(self._buffer[:nbytes]))


class _Http(HttpToolsProtocol):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._received = b""  # and not parsed
        self.left = 0  # bytes of the body to be parsed; -1: it is chunked; 0: a head is next
        self._size = 0  # bytes parsed of a head, or of a chunked body since its last data
        self._is_idle, self._is_half_closed = True, False  # idle: the last request is responded to
        self._is_refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(_MAX_UNSENT)
        self._set_timer(_HEAD_SECONDS, self._on_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in filter(None, (self._timer, self._write_timer)):
            timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, but no request before the response to the last one.

        httptools cannot be paused, so it gets no piece that goes past the end of a head or a body.
        """
        self._unset_keepalive_if_required()
        data, start = self._received + data if self._received else data, 0
        while start < len(data) and (self.left or self._is_idle):
            if self.left > 0:
                end = min(start + self.left, len(data))
                self.left -= end - start
            else:
                if not (self.left or self._size) and data[start] in _END:  # empty lines
                    start = len(data) - len(data[start:].lstrip(b"\r\n"))
                end = data.find(_END, start) + len(_END)
                if end < len(_END):
                    begun = (n for n in (3, 2, 1) if data.endswith(_END[:n], start))
                    end = len(data) - next(begun, 0)
                self._size += end - start
            if start == end:
                break
            self._feed(data[start:end])
            start = end
        self._received = data[start:]
        if len(self._received) > _MAX_AHEAD and not self._is_half_closed:
            self.transport.pause_reading()  # not by `flow`, which the application resumes
        if self._is_idle and not self._timer and (self._size or self._received):
            self._set_timer(_HEAD_SECONDS, self._on_timeout)

    def _feed(self, piece: bytes) -> None:
        try:
            if self._size > _HEAD_BYTES:
                self._refuse(431, f"Request line and headers may have {_HEAD_BYTES} bytes in all.")
            else:
                self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Ignored; httptools would skip the body, so it gets the head again, without `Upgrade`.
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
            if method == b"CONNECT":
                self._refuse(400, "Malformed HTTP: CONNECT is for proxies.")
                return
            self.parser = httptools.HttpRequestParser(self)
            line = b"%b %b HTTP/%b" % (method, self.url, version)
            self._feed(b"\r\n".join([line, *headers]) + _END)
        except httptools.HttpParserCallbackError:
            if len(self.headers) <= _HEADERS:
                text = "the path cannot be read, there is not one header Host, or the body has"
                self._refuse(400, f"Malformed HTTP: {text} a coding other than chunked.")
        except httptools.HttpParserError as error:
            self._refuse(400, f"Malformed HTTP: {error}.")
        if len(self.headers) > _HEADERS:
            self._refuse(431, f"A request may have {_HEADERS} headers.")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # `_feed` begins again
        hosts, left, is_chunked = 0, 0, True
        for name, value in self.headers:
            hosts += name == b"host"
            if name == b"content-length":
                left = int(value)
            elif name == b"transfer-encoding":
                left, is_chunked = -1, is_chunked and value.strip().lower() == b"chunked"
        is_named = hosts == 1 or self.parser.get_http_version() != "1.1"
        if len(self.headers) > _HEADERS or not (is_named and is_chunked):
            raise ValueError
        super().on_headers_complete()
        self._size, self._is_idle, self.left = 0, False, left
        self.headers = []  # of the trailers, which are dropped
        self._set_timer()

    def on_body(self, body: bytes) -> None:
        self._size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self.left = self._size = 0
            self._set_timer()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_if_unread()
        elif self._received and not self.left:
            self._unset_keepalive_if_required()
            pause = len(self.connections) * _PAUSE * (0.5 + random.random())  # noqa: S311
            self.loop.call_later(pause, self._next)  # not all of them at once
        elif self.left or self._timer:
            self._next()
        else:
            self._is_idle = True

    def _next(self) -> None:
        """Take the next request, after the response to the last one."""
        if self.transport.is_closing():
            return
        self._is_idle = True
        self._set_timer(_HEAD_SECONDS, self._on_timeout if self.left else None)
        if self._received:
            self.data_received(b"")
        if self._is_half_closed:
            if not self.eof_received():
                self._close()
        elif len(self._received) <= _MAX_AHEAD and not self.flow.read_paused:
            self.transport.resume_reading()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: the client may still read a response."""
        is_busy = not (self.left or self._is_idle or self._is_refused)
        self._is_half_closed = is_busy and self.scheme == "http"
        if self._is_half_closed:
            self._set_timer(_FIRST_PROBE, self._probe)
        return self._is_half_closed

    def _probe(self) -> None:
        """Write something: a client that has disconnected replies with a reset."""
        if self.cycle.scope["http_version"] != "1.1":  # 1.0 has no interim responses
            self._close()
        elif not self.cycle.response_started:
            self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            self._set_timer(_NEXT_PROBE, self._probe)

    def _on_timeout(self) -> None:
        if self.left or not (self._size or self._received):
            self._close()
        else:
            self._refuse(408, f"The headers did not arrive within {_HEAD_SECONDS:g} s.")

    def _refuse(self, status: int, message: str) -> None:
        """Respond with an error, and parse nothing more."""
        request_id = os.urandom(16).hex()
        say_about(request_id=request_id)
        self.logger.warning("Refused with %d: %s", status, message)
        if self.left:
            if self.cycle.response_started:  # and nothing can be written within another response
                self._close()
                return
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        self.on_message_begin()  # frees the headers
        self.parser = None  # type: ignore[assignment]
        self.left, self._is_idle, self._is_refused = 0, False, True
        response = error_response(status, message, {"Connection": "close"})
        headers = [*response.raw_headers, *SECURITY, *self.server_state.default_headers]
        headers.append((b"x-request-id", request_id.encode()))
        head = STATUS_LINE[status] + b"\r\n".join(b"%b: %b" % header for header in headers)
        self.transport.write(head + _END + bytes(response.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.pause_reading()
        self._set_timer(_LINGER, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_if_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _close(self) -> None:
        self.transport.close()
        self._abort_if_unread()

    timeout_keep_alive_handler = _close

    def _abort_if_unread(self, before: float = math.inf) -> None:
        """Abort the connection if its client does not read what was written."""
        size = self.transport.get_write_buffer_size()
        if size > before - _READ_BYTES:
            self.transport.abort()
        elif before < math.inf or not self._write_timer:
            self._write_timer = self.loop.call_later(_READ_SECONDS, self._abort_if_unread, size)

    def _set_timer(self, seconds: float = 0, call: Callable[[], None] | None = None) -> None:
        """Call `call` after so many seconds, instead of what the timer was set to before."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, call) if call else None
