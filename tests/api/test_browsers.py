"""Browsers: pages of other origins, headers for security, and hosts."""

import re
import socket
from typing import Any

import httpx
import pytest

from predictor.api.app import create_app
from predictor.config import Config
from predictor.errors import ConfigError
from tests.api.test_keys import ALICE, bearer
from tests.processes import Api, Processes

PAGE = "https://page.example"
SECURITY = {"content-security-policy", "x-content-type-options"}


@pytest.fixture
def open_to_page(processes: Processes) -> Api:
    settings: dict[str, Any] = {"api_keys": f"alice:{ALICE}", "rate": 0.01, "burst": 2}
    return processes.api(cors_origins=f"{PAGE}, https://b.example:8443", **settings)


def _preflight(api: Api, origin: str, *headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Origin": origin}
    asked |= {"Access-Control-Request-Headers": ",".join(headers)} if headers else {}
    return httpx.request("OPTIONS", f"http://127.0.0.1:{api.port}/predict", headers=asked)


def test_a_page_of_another_origin(open_to_page: Api) -> None:
    sent = (
        *("authorization", "content-type", "async-mode", "prefer", "idempotency-key"),
        *("cancel-after", "webhook-url", "last-event-id", "x-request-id"),
    )
    allowed = _preflight(open_to_page, PAGE, *sent)
    assert allowed.status_code == 200, "without a key: browsers send none"
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert {"DELETE", "GET", "POST"} <= set(
        re.findall("[A-Z]+", allowed.headers["access-control-allow-methods"])
    )
    refused = _preflight(open_to_page, "https://other.example", "x-other")
    assert refused.json() == {"error": "Disallowed CORS origin, headers."}
    assert "access-control-allow-origin" not in refused.headers

    def ask(method: str, path: str, key: str | None = ALICE, **more: Any) -> httpx.Response:
        headers = {"Origin": PAGE} | (bearer(key) if key else {}) | more.pop("headers", {})
        url = f"http://127.0.0.1:{open_to_page.port}{path}"
        answer = httpx.request(method, url, headers=headers, **more)
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]
        assert set(answer.headers) >= SECURITY | {"x-request-id"}
        return answer

    body: dict[str, Any] = {"json": {"input": "x"}}
    later: dict[str, Any] = {"headers": {"Async-Mode": "true"}}
    accepted = ask("POST", "/predict", **body, **later)
    id_ = accepted.json()["prediction_id"]
    exposed = accepted.headers["access-control-expose-headers"]
    for name in ("Location", "Retry-After", "X-Request-ID", "Server-Timing", "RateLimit-Policy"):
        assert name in exposed.split(", ")
    assert ask("POST", "/predict", None).status_code == 401
    assert ask("GET", "/predict/nothing").status_code == 404
    assert ask("PUT", "/predict").status_code == 405
    too_large: dict[str, Any] = {
        "content": b"x" * (11 * 2**20),
        "headers": {"Content-Type": "application/json"},
    }
    assert ask("POST", "/predict", **too_large).status_code == 413
    assert ask("POST", "/predict", json={"x": 1}).status_code == 422
    assert ask("POST", "/predict", **body, **later).status_code == 202
    assert ask("POST", "/predict", **body, **later).status_code == 429
    assert ask("POST", f"/predict/{id_}/cancel").status_code == 200
    assert "event: completed" in ask("GET", f"/predict/{id_}/events").text
    plain = httpx.get(f"http://127.0.0.1:{open_to_page.port}/health/live")
    assert not any(name.startswith("access-control") for name in plain.headers)
    assert plain.headers["vary"] == "Origin"


async def test_a_bug_has_the_headers_too() -> None:
    app = create_app(Config(cors_origins="*"))

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/bug", headers={"Origin": PAGE, "X-Request-ID": "7"})
    assert answer.json() == {"error": "Something went wrong here; the log says what."}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"] == "7"
    assert set(answer.headers) >= SECURITY


@pytest.mark.parametrize("edge", ["predictor.api.protocol:Protocol", "auto"])
def test_every_response_has_headers_for_security(processes: Processes, edge: str) -> None:
    api = processes.api("--http", edge, "--no-server-header", mock_delay=0)
    answers = [
        *(api.client.get(path) for path in ("/health/live", "/x", "/openapi.json")),
        *(api.predict("x"), api.client.put("/predict"), api.post("x", Async_Mode="x")),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    docs = api.client.get("/docs")
    assert docs.headers["referrer-policy"] == "no-referrer"
    policy = docs.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    sources = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert sources
    assert all(source.startswith("/") for source in sources), "all from here, as it says"


def test_hosts(processes: Processes) -> None:
    api = processes.api(allowed_hosts="api.example, *.inner.example,[::1]", api_keys="")

    def status(*hosts: str, path: str = "/openapi.json") -> int:
        named = "".join(f"Host: {host}\r\n" for host in hosts)
        request = f"GET {path} HTTP/1.1\r\n{named}Connection: close\r\n\r\n".encode()
        return int(_raw(api, request).split()[1])

    for host in ("api.example", "API.example:8080", "a.inner.example", "a.b.inner.example:1"):
        assert status(host) == 200, host
    for host in ("[::1]", "[::1]:80"):
        assert status(host) == 200, host
    for host in ("", "x", "api.example.x", "xapi.example", "inner.example", "api.example:x"):
        assert status(host) == 400, host
    assert status() == 400
    assert status("api.example", "api.example") == 400
    assert status("10.0.0.7:8080", path="/health/live") == 200, "a probe"
    answer = _raw(api, b"GET /docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    error = "Header Host has a value that is not served here (PREDICTOR_ALLOWED_HOSTS)."
    assert answer.endswith(b'{"error":"%b"}' % error.encode())
    assert b"location" not in answer


def _raw(api: Api, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("CORS_ORIGINS", v) for v in ("page.example", "https://a.example/", "https://A", "null")),
        *(
            ("CORS_ORIGINS", v)
            for v in ("https://", "https://*.a", "https://a.b, c", "https://a b")
        ),
        *(("ALLOWED_HOSTS", v) for v in ("https://a", "a:80", "*", "a*", "*a", "*.", "a,b/c", "[")),
    ],
)
def test_wrong_values_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PREDICTOR_{name}", value)
    with pytest.raises(ConfigError, match=f"^PREDICTOR_{name}: must be like "):
        Config()
