"""The subcommands that ask an api, against a real one."""

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import select
import signal
import socket
import socketserver
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from predictor.__main__ import main
from predictor.client import commands
from tests.processes import Api, Processes, eventually, free_port

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a subcommand; answers its exit status, output and errors."""

    def run(api: Api | str, *arguments: str) -> tuple[int, str, str]:
        url = api if isinstance(api, str) else f"http://127.0.0.1:{api.port}"
        try:
            status = main([arguments[0], "--url", url, *arguments[1:]])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_RETRY_FOR", 0.3)


@contextlib.contextmanager
def _stdin(data: bytes) -> Iterator[None]:
    before, (reading, writing) = os.dup(0), os.pipe()
    os.write(writing, data)
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    yield
    os.dup2(before, 0)
    os.close(before)


class Proxy(socketserver.ThreadingTCPServer):
    """Stands before an api, and cuts connections."""

    daemon_threads = True

    def __init__(self, api: Api, loses: Callable[[bytes], bool]) -> None:
        """`loses`: whether to cut the connection instead of passing on this piece of an answer."""
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._port = api.port
        self._loses = loses
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=[0.01]).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def finish_request(self, client: Any, _: Any) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as api:
            while True:
                for source in select.select([client, api], [], [])[0]:
                    data = source.recv(65536)
                    if not data or (source is api and self._loses(data)):
                        return
                    if source is client:
                        self.requests.append(data.decode())
                    (api if source is client else client).sendall(data)


def _once(piece: bytes) -> Callable[[bytes], bool]:
    """True for the first that has `piece` in it."""
    found: list[bytes] = []

    def loses(data: bytes) -> bool:
        is_first = piece in data and not found
        found.extend([data] if is_first else [])
        return is_first

    return loses


def test_predict_prints_the_result(served: Api, run: Run) -> None:
    status, out, err = run(served, "predict", "ü")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"\d{4,5}\n", out)
    status, out, _ = run(served, "predict", "ü", "--json")
    assert re.fullmatch(r'\{"input":"ü","result":"\d{4,5}"\}\n', out)


def test_predict_reads_standard_input(served: Api, run: Run) -> None:
    with _stdin(b" a\nb\n"):
        _, out, _ = run(served, "predict", "-", "--json")
    assert json.loads(out)["input"] == " a\nb\n"
    with _stdin(b"\xff"):
        status, out, err = run(served, "predict", "-")
    assert (status, out) == (2, "")
    assert err.startswith("predictor: the text is not UTF-8: ")


def test_async_prediction_status_and_cancel(slow: Api, run: Run) -> None:
    status, out, err = run(slow, "predict", "30", "--async")
    id_ = out.strip()
    assert (status, out, err) == (0, f"{id_}\n", "")
    eventually(lambda: slow.status(id_)["status"] == "running", "a start")
    status, out, _ = run(slow, "status", id_)
    assert status == 0
    assert out.startswith(f"prediction_id: {id_}\nstatus: running\ncreated: 2")
    assert "None" not in out
    status, out, _ = run(slow, "status", id_, "--json")
    assert json.loads(out) == slow.status(id_)
    status, out, err = run(slow, "status", id_, "--wait", "0.2")
    assert (status, out) == (75, "")
    assert err == (
        f"predictor: not ended within 0.2 s: {id_} goes on; "
        f"to wait for it: predictor status {id_} --wait\n"
    )
    status, out, _ = run(slow, "cancel", id_)
    assert (status, out) == (0, f"prediction_id: {id_}\nstatus: canceling\n")
    assert run(slow, "status", id_, "--wait") == (1, "", "predictor: Prediction was canceled.\n")
    status, _, err = run(slow, "predict", "0.01", "--wait", "20")
    assert (status, err) == (0, "")


def test_waiting_prints_the_result_and_no_bar_in_a_pipe(slow: Api, run: Run) -> None:
    assert run(slow, "predict", "0.1", "--wait") == (0, "0.1\n", "")
    id_ = slow.submit("0.1")
    assert run(slow, "status", id_, "--wait", "20") == (0, "0.1\n", "")
    _, out, _ = run(slow, "status", id_, "--wait", "--json")
    assert json.loads(out) == {"prediction_id": id_, "output": {"input": "0.1", "result": "0.1"}}


def test_a_result_is_text_or_json(processes: Processes, run: Run) -> None:
    api = processes.api(model="tests.models.results:predict")
    assert run(api, "predict", "nested") == (0, '{"a":[1,{"b":null}]}\n', "")
    assert run(api, "predict", "nothing") == (0, "null\n", "")
    assert run(api, "predict", "object")[0] == 1


def test_invalid_input_and_failed_model(processes: Processes, run: Run) -> None:
    model = "tests.models.raises:predict"
    api = processes.api(model=model)
    processes.worker(model=model)
    for text, says in (
        ("refused", "The text must not be 'refused'."),
        ("exception", "The model failed on this input."),
    ):
        assert run(api, "predict", text) == (1, "", f"predictor: {says}\n")
        assert run(api, "predict", text, "--wait") == (1, "", f"predictor: {says}\n")


@pytest.mark.parametrize(
    "arguments",
    [["status", "no-such"], ["status", "a/b", "--wait"], ["status", ""], ["cancel", "../no?such"]],
)
def test_unknown_id(served: Api, run: Run, arguments: list[str]) -> None:
    says = "predictor: No such prediction: never accepted, or no longer kept.\n"
    assert run(served, *arguments) == (66, "", says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict"], "give one text (-: standard input), or --jsonl FILE"),
        (["predict", "x", "--jsonl", "x"], "give one text (-: standard input), or --jsonl FILE"),
        (["predict", "x", "--output", "x"], "--output is for --jsonl"),
        (["predict", "\udcff"], "the text is not UTF-8: "),
        (["predict", "--jsonl", "no-such"], "no-such: No such file or directory"),
        (["predict", "--jsonl", ""], "'': No such file or directory"),
        (["predict", "NaN", "--input-json"], "the text is not JSON: "),
        (
            ["predict", "--jsonl", "/dev/null", "--output", "/dev/full"],
            "/dev/full: --output must name a regular file",
        ),
    ],
)
def test_usage_errors(served: Api, run: Run, arguments: list[str], says: str) -> None:
    status, out, err = run(served, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"predictor: {says}")
    assert err.count("\n") == 1


def test_too_large_text(served: Api, run: Run) -> None:
    """Also where the api hangs up before it has all been sent, which can take its answer along."""
    for size in (1_050_000, 9_000_000):
        status, _, err = run(served, "predict", "x" * size, "--async")
        assert (status, err.count("\n")) == (2, 1)
        assert "PREDICTOR_MAX_BODY" in err


def test_parser_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["predict", "--wait", "x"], ["predict", "x", "--wait", "0"], ["status"]):
        with pytest.raises(SystemExit, match=r"^2$"):
            main(arguments)
    assert "'x' is no number above 0; a text or an id goes first" in capsys.readouterr().err


def test_invalid_url(run: Run) -> None:
    for url in ("127.0.0.1:8080", "ftp://x", "http://", "http://[x", "http://x:99999"):
        status, _, err = run(url, "predict", "x")
        assert status == os.EX_CONFIG
        assert err.startswith("predictor: PREDICTOR_URL: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTP_PROXY", "x://y:z"), ("SSL_CERT_FILE", "/none")],
)
def test_proxies_and_certificates_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, run: Run, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    status, _, err = run("https://127.0.0.1:1", "predict", "x")
    assert status == 2
    assert err.startswith("predictor: The proxy or the certificates that the environment names ")
    assert err.count("\n") == 1


def test_server_that_is_not_the_api(served: Api, run: Run) -> None:
    """It is not asked twice."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request).start()
        status, _, err = run(f"http://127.0.0.1:{other.server_port}", "status", "x")
    assert status == 69
    assert "/predict/x/status: 404 File not found (is that the api?)\n" in err
    status, _, err = run(f"http://127.0.0.1:{served.port}/elsewhere", "predict", "x")
    assert (status, err.count("\n")) == (69, 1)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"prediction_id": 5, "status": 6, "progress": 7}'),
        ("text/event-stream", b"event: output\ndata: {\n\n"),
    ],
)
def test_server_that_answers_in_another_form(run: Run, kind: str, body: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, args=[0.01]).start()
        for arguments in (["predict", "x", "--async"], ["status", "x"]):
            status, _, err = run(f"http://127.0.0.1:{other.server_port}", *arguments)
            assert (status, err.count("\n")) == (69, 1)
            assert "the api" in err
        other.shutdown()


@pytest.mark.usefixtures("_impatient")
def test_unreachable_api(run: Run) -> None:
    url = f"http://me:sesame@127.0.0.1:{free_port()}"
    for arguments in (["predict", "x"], ["predict", "x", "--wait"], ["cancel", "x"]):
        status, _, err = run(url, *arguments)
        assert status == 69
        assert re.fullmatch(r"predictor: no answer from 127.*\n", err)


def test_retries_until_a_slot_is_free(processes: Processes, run: Run, tmp_path: Path) -> None:
    api = processes.api(model="tests.models.slow:predict", concurrency=1)
    starts = tmp_path / "starts"
    other = threading.Thread(target=api.predict, args=[f"0.5 {starts}"])
    other.start()
    eventually(starts.exists, "a full api")
    assert run(api, "predict", "0") == (0, "0\n", "")
    other.join()


def test_lost_response_is_retried_only_if_nothing_runs_twice(
    slow: Api, run: Run, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    with Proxy(slow, _once(b"HTTP/1.1 200")) as proxy:
        status, out, err = run(proxy.url, "predict", f"0 {starts}")
    assert (status, out) == (69, "")
    assert err.startswith("predictor: no answer from ")
    assert len([one for one in proxy.requests if one.startswith("POST")]) == 1
    with Proxy(slow, _once(b"HTTP/1.1 202")) as proxy:
        assert run(proxy.url, "predict", f"0 {starts}", "--wait")[0] == 0
    first, second = (one for one in proxy.requests if one.startswith("POST"))
    assert _key(first) == _key(second)
    assert len(starts.read_text().splitlines()) == 2


def _key(request: str) -> str:
    found = re.search("Idempotency-Key: (.*)", request)
    assert found
    return found[1]


def test_closed_output_pipe(served: Api, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as deaf:
        monkeypatch.setattr("sys.stdout", deaf)
        assert run(served, "predict", "x") == (141, "", "")


def test_progress_on_a_terminal_survives_a_broken_stream(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    model = "tests.models.talks:predict"
    api = processes.api(model=model)
    processes.worker(model=model)
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with Proxy(api, _once(b"5 of 8")) as proxy, os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        status, out, _ = run(proxy.url, "predict", "8 0.2", "--wait")
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert (status, len(out)) == (0, 33)
    assert re.search(r"running +0%\|.*1 of 8 +12%\|.*2 of 8 +25%\|.*8 of 8 +100%\|", shown)
    assert shown.count("1 of 8") == 1
    first, second = (one for one in proxy.requests if "/events " in one)
    assert "Last-Event-ID" not in first
    assert "Last-Event-ID: " in second


def test_the_result_comes_at_a_terminal_though_all_streams_are_cut(
    slow: Api, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    ours, terminal = pty.openpty()
    began = time.monotonic()
    with (
        Proxy(slow, lambda data: b"text/event-stream" in data) as proxy,
        os.fdopen(terminal, "w") as stderr,
    ):
        monkeypatch.setattr("sys.stderr", stderr)
        status, out, _ = run(proxy.url, "predict", "1", "--wait")
    os.close(ours)
    assert (status, out.strip()) == (0, "1")
    assert [one for one in proxy.requests if "/events " in one]
    assert time.monotonic() - began < commands._RETRY_FOR / 2


def test_ctrl_c_says_how_to_resume(slow: Api, processes: Processes, run: Run) -> None:
    with Proxy(slow, lambda _: False) as proxy:
        command = ("python", "-m", "predictor", "predict", "30", "--wait")
        waiting = processes.start(*command, url=proxy.url)
        asked = eventually(
            lambda: [one for one in proxy.requests if one.startswith("GET")], "a look at it"
        )
        waiting.signal(signal.SIGINT)
        assert waiting.wait() == 130
    id_ = asked[0].split("/")[2].split()[0]
    assert waiting.output == (
        f"predictor: {id_} goes on; to wait for it: predictor status {id_} --wait\n"
    )
    assert run(slow, "cancel", id_)[0] == 0
