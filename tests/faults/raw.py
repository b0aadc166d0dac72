"""Requests as no client would send them, made of a seed: bytes for a socket."""

import itertools
import json
import random
from collections.abc import Callable, Iterator

_JSON = b"Content-Type: application/json\r\n"
_METHODS = (
    *(b"GET", b"POST", b"DELETE", b"HEAD", b"PUT", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"),
    *(b"get", b"PRI", b"M-SEARCH", b"PROPFIND", b"G\0T", b"", b"X" * 300, b"\xc3\xa9", b"GET\t"),
)
_VERSIONS = (
    *(b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.9", b"HTTP/11"),
    *(b"http/1.1", b"HTTP/1.1 ", b"", b"HTTPS/1.1", b"HTTP/1.\xff", b"RTSP/1.0", b"ICE/1.0"),
)
_IDS = (
    *("0" * 32, "f" * 64, "f" * 65, "%00", "a%00b", "%0d%0aX-A:%20b", "%0a", "*", "arq:job:*"),
    *("?", "[a-z]", "..", "%2e%2e%2f", "a%2fb", "a/b", "%ff", "%c3%28", "%ed%a0%80", "%", "%zz"),
    *("%u0000", "\xe9", "%F0%9F%98%80", "a;b", "a?b=c", "a#b", "~", "null", "-1", "%20", "{}"),
    *("'", '"', "<b>", "$(id)", "%25%30%30", "a" * 5000, "KEYS[1]", "9" * 400, "\\"),
)
_PARTS = ("", "/", "/status", "/events", "/cancel", "/webhook", "/Status", "//events", "/%00", "/x")
_PATHS = (
    *(b"/", b"", b"*", b"/predict", b"//predict", b"/predict?", b"/predict/", b"/predict?a=%00"),
    *(b"/health/live", b"/health/ready", b"/docs", b"/metrics", b"/static-offline-docs/../app.py"),
    *(b"/static-offline-docs/%2e%2e/%2e%2e/config.py", b"/static-offline-docs/%00", b"/\xff", b"x"),
    *(b"http://x/predict", b"http://", b"x:443", b"/" + b"a" * 9000, b"/a b", b"/\0", b"/%"),
)
_SPLICES = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\x0b", b" ", b"\t", b":", b",", b";", b"%"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"0", b"-", b"9" * 25, b"{", b'"', b"\\"),
    *(b"\\ud800", b"NaN", b"1e999", b"HTTP/1.1", b"chunked", b"A" * 1000, b"\x7f", b"Host: y\r\n"),
)
_VALUES = (
    *(b"true", b"false", b"TRUE", b"yes", b"", b" ", b"true, true", b"true\r\nAsync-Mode: false"),
    *(b"wait=1", b"wait=99999999999999999999", b"wait=-1", b"respond-async", b'"', b'"a', b"\xff"),
    *(b"return=minimal", b'a,b=c;d="e', b",,,,", b"9h", b"0s", b"1e9s", b"999999999h", b"1h1h"),
    *(b"k", b"a b", b"\x80\xff", b"x" * 255, b"x" * 256, b"*", b"https://127.0.0.1/", b"http://["),
    *(b"https://a:b@c/", b"https://" + b"a." * 200, b"file:///etc/passwd", b"//x", b"https://\xff"),
    *(b"1", b"0", b"-1", b"1-1", b"99999999999999999", b"text/event-stream", b"*/*", b"image/png"),
    *(b"a/b;q=2, c/d;q=", b"application/json", b"application/json;charset=utf-16", b"text/plain"),
    *(b"application/json\0", b"multipart/form-data", b"gzip", b"br", b"bytes=0-1", b"100-continue"),
    *(b"close", b"keep-alive", b"upgrade", b"websocket", b"h2c", b"trailers", b"x, y", b"Bearer x"),
)
_NAMES = (
    *(b"Async-Mode", b"Prefer", b"Idempotency-Key", b"Cancel-After", b"Webhook-Url", b"Accept"),
    *(
        b"Last-Event-ID",
        b"Content-Type",
        b"X-Request-ID",
        b"Host",
        b"Connection",
        b"Upgrade",
        b"TE",
    ),
    *(b"Expect", b"Authorization", b"Origin", b"Cookie", b"Content-Encoding", b"Range", b"Trailer"),
    *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"Forwarded", b"If-None-Match", b"traceparent"),
    *(
        b"Access-Control-Request-Method",
        b"Content-Length",
        b"Transfer-Encoding",
        b"",
        b"a b",
        b"\xff",
    ),
    *(b"Async_Mode", b"A\0", b"(a)", b":authority", b"x" * 3000),
)
_BODIES = (
    *(b"", b"{}", b"[]", b"null", b'{"input":"x"}', b'{"input":{"text":"x"}}', b'{"input":null}'),
    *(b'{"input":"\\ud800"}', b'{"input":"\xff"}', b'{"input":"\\u0000"}', b'{"input":NaN}'),
    *(b'{"input":1e999}', b'{"input":' + b"9" * 5000 + b"}", b'{"input":1,"input":2}', b'{"input"'),
    *(
        b"[" * 3000 + b"]" * 3000,
        b'{"input":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b"\xef\xbb\xbf{}",
    ),
    *('{"input":"x"}'.encode("utf-16"), b'{"input":"' + b"x" * 70_000 + b'"}', b'{"Input":"x"}'),
    *(
        b'{"input":"x","a":1}',
        b'{"input":"x"}{}',
        b"input=x",
        b'"x"',
        b'{"input":"x"}\0',
        b"\0\0\0\0",
    ),
    *(
        b'{"input":{"text":"x","temperature":3}}',
        b'{"input":{"text":"x","tags":[1]}}',
        b"true",
        b"-",
    ),
)
_LENGTHS = (
    *(b"Content-Length: %d\r\n", b"Content-Length: +%d\r\n", b"Content-Length: 0x%x\r\n"),
    *(b"Content-Length : %d\r\n", b"Content-Length:\t%d\r\n", b"Content-Length: %d, %d\r\n"),
    *(b"content-length: %d\r\nCONTENT-LENGTH: 0\r\n", b" Content-Length: %d\r\n", b"X: %d\r\n"),
    *(b"Content-Length: %d\nX: y\r\n", b"Content-Length: %d \r\n", b"Content_Length: %d\r\n"),
    *(b"Content-Length: 1%d\r\n", b"Content-Length: -%d\r\n", b"Content-Length: %d\0\r\n"),
)
_ENCODINGS = (
    *(
        b"",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: Chunked\r\n",
        b"TE: chunked\r\n",
    ),
    *(b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: xchunked\r\n"),
    *(b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding: chunked, identity\r\n"),
    *(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n"),
    *(b"X: y\r\n Transfer-Encoding: chunked\r\n", b"X: y\nTransfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b'Transfer-Encoding: "chunked"\r\n'),
)


class Requests:
    """An endless number of them, always the same ones for a seed."""

    def __init__(self, seed: int, known: list[str]) -> None:
        """`known`: ids of predictions that there are."""
        self._random, self._known = random.Random(seed), known

    def __iter__(self) -> Iterator[list[bytes]]:
        """What is sent on one connection, in the pieces in which it is sent."""
        kinds: list[Callable[[], bytes]] = [
            *(self._valid, self._mutated, self._mutated, self._noise, self._head, self._smuggled),
            *(self._headers, self._id, self._id, self._body, self._body),
        ]
        choose = self._random
        while True:
            count = choose.choice((1, 1, 1, 1, 2, 3))
            sent = b"".join(choose.choice(kinds)() for _ in range(count))
            cuts = sorted(
                choose.randrange(len(sent) + 1) for _ in range(choose.choice((0, 0, 0, 2)))
            )
            yield [sent[a:b] for a, b in itertools.pairwise((0, *cuts, len(sent)))]

    def _request(
        self, method: bytes, path: bytes, headers: bytes = b"", body: bytes = b""
    ) -> bytes:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return b"%b %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n%b" % (method, path, headers, length, body)

    def _valid(self) -> bytes:
        pick = self._random.choice
        text = "".join(pick("aä€😀 \u2028\\") for _ in range(self._random.randrange(20)))
        body = json.dumps({"input": text}, ensure_ascii=pick((True, False))).encode()
        mode = pick((b"", b"Async-Mode: true\r\n", b"Prefer: wait=1\r\n", b"Connection: close\r\n"))
        return pick(
            (
                self._request(b"POST", b"/predict", _JSON + mode, body),
                self._request(b"POST", b"/predict", _JSON + mode, body),
                self._request(b"GET", b"/health/" + pick((b"live", b"ready"))),
                self._request(b"GET", b"/openapi.json"),
                self._request(
                    b"GET", b"/predict/" + b"0" * 32 + pick((b"", b"/status", b"/events"))
                ),
            )
        )

    def _mutated(self) -> bytes:
        draw, data = self._random, bytearray(self._random.choice((self._valid, self._body))())
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            at = draw.randrange(len(data) + 1)
            match draw.randrange(5):
                case 0:
                    data[at : at + 1] = draw.randbytes(1)
                case 1:
                    del data[at : at + draw.choice((1, 1, 5, 50))]
                case 2:
                    data[at:at] = draw.choice(_SPLICES)
                case 3:
                    data[at:at] = data[draw.randrange(len(data) + 1) :][: draw.choice((1, 10, 100))]
                case 4:
                    data[at:] = data[at:].swapcase()
        return bytes(data)

    def _noise(self) -> bytes:
        size = self._random.choice((1, 10, 100, 1000, 10_000, 40_000))
        noise = self._random.randbytes(self._random.randrange(size) + 1)
        return self._random.choice((b"", b"", b"GET /", b"POST /predict HTTP/1.1\r\n")) + noise

    def _head(self) -> bytes:
        pick = self._random.choice
        space, end = (
            pick((b" ", b" ", b" ", b"  ", b"\t", b"")),
            pick((b"\r\n", b"\r\n", b"\n", b"\r")),
        )
        line = space.join((pick(_METHODS), pick(_PATHS), pick(_VERSIONS)))
        return (
            line + end + pick((b"Host: x", b"Host: x\r\nHost: y", b"", b"Host:", b"H")) + end + end
        )

    def _smuggled(self) -> bytes:
        pick = self._random.choice
        inner = self._request(pick((b"GET", b"DELETE")), b"/predict/smuggled")
        chunk = b"%x%b\r\n%b\r\n" % (
            len(inner),
            pick((b"", b";a=b", b" ", b"\t", b";" * 99)),
            inner,
        )
        end = pick(
            (b"0\r\n\r\n", b"0\r\n\r\n" + inner, b"0\r\nX: y\r\n\r\n", b"0\n\n", b"", b"00\r\n\r\n")
        )
        body = pick((chunk + end, inner, end + inner, chunk))
        length = pick(_LENGTHS)
        length = length.replace(b"%d", b"%d" % len(body)).replace(b"%x", b"%x" % len(body))
        parts = [pick((length, b"")), pick(_ENCODINGS)]
        self._random.shuffle(parts)
        return b"POST /predict HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (_JSON, b"".join(parts)) + body

    def _headers(self) -> bytes:
        draw, count = self._random, self._random.choice((1, 3, 10, 120, 127, 128, 200, 1000))
        lines = [
            draw.choice(_NAMES)
            + draw.choice((b": ", b": ", b":", b" : ", b""))
            + draw.choice(_VALUES)
            for _ in range(count)
        ]
        if draw.random() < 0.1:
            lines.append(b"X-Long: " + b"v" * draw.choice((1000, 31_000, 32_768, 40_000)))
        method, path = draw.choice(((b"POST", b"/predict"), (b"GET", b"/predict/a/events")))
        return self._request(method, path, b"\r\n".join(lines) + b"\r\n", draw.choice(_BODIES))

    def _id(self) -> bytes:
        pick = self._random.choice
        id_ = pick((pick(_IDS), pick(self._known)))
        path = f"/predict/{id_}{pick(_PARTS)}".encode("latin-1")
        header = b"%b: %b\r\n" % (pick(_NAMES[:7]), pick(_VALUES))
        return self._request(pick(_METHODS[:9]), path, pick((b"", b"", header)))

    def _body(self) -> bytes:
        pick, body = self._random.choice, self._random.choice(_BODIES)
        kind = b"Content-Type: %b\r\n" % pick((*_VALUES[-22:-14], b"application/json"))
        header = b"%b: %b\r\n" % (pick(_NAMES[:7]), pick(_VALUES))
        kind += pick((b"", b"", header, b"Expect: 100-continue\r\n", b"Async-Mode: true\r\n"))
        if pick((True, True, False)):
            return self._request(b"POST", b"/predict", pick((kind, _JSON)), body)
        size = pick((len(body) or 1, 1, 7, 4096))
        pieces = (body[at : at + size] for at in range(0, len(body), size))
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        chunked = kind + b"Transfer-Encoding: chunked\r\n"
        return self._request(b"POST", b"/predict", chunked) + chunks + b"0\r\n\r\n"
