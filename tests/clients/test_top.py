"""`predictor top`, with and without a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Self

import pytest

from predictor.client import Client
from tests.processes import ROOT, Api, Processes, eventually, free_port

KEY = "a-key-of-32-characters-or-more-x"


class Terminal:
    """A terminal of 24 lines in which `predictor top` runs."""

    def __init__(self, url: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(100)
        command = [sys.executable, "-m", "predictor", "top", "--interval", "0.1", "--url", url]
        inherited = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            command,
            env=inherited | {"TERM": "xterm", "PYTHONPATH": str(ROOT)} | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self.before = termios.tcgetattr(theirs)
        self._theirs, self.shown = theirs, ""
        self._ends: tuple[int, ...] = (theirs, self._ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends = ()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def shows(self, pattern: str) -> str:
        """What is shown from now on, once it has this."""
        self.shown = ""

        def look() -> bool:
            while select.select([self._ours], [], [], 0)[0]:
                self.shown += os.read(self._ours, 65536).decode(errors="replace")
            return bool(re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)))

        eventually(look, pattern, 20)
        return self.shown

    @property
    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self._theirs))


@pytest.fixture
def talking(processes: Processes) -> Iterator[tuple[Api, Client]]:
    model = "tests.models.slow:predict"
    api = processes.api(model=model, model_version="[v7]")
    processes.worker(model=model, concurrency=3)
    with Client(f"http://127.0.0.1:{api.port}") as client:
        yield api, client


def test_a_terminal_shows_what_happens(talking: tuple[Api, Client], processes: Processes) -> None:
    api, client = talking
    url = f"http://127.0.0.1:{api.port}"
    with Terminal(url) as terminal:
        shown = terminal.shows(r"tests.models.slow:predict \[v7\][^\0]*queued +0 +oldest 0.0 s")
        assert "\x1b[36m" in shown
        long = [client.submit("30") for _ in range(5)]
        terminal.shows(r"queued +2 [^\0]*running +3 +of 3 slots, 1 workers[^\0]*█")
        for prediction in long:
            prediction.cancel()
        client.submit("0").wait()
        terminal.shows(r"ended +[\d.]+/s +.*succeeded")
        terminal.resize(60)
        terminal.shows(r"queued[^\r\n]{,54}\r?\n")
        api.process.signal(signal.SIGKILL)
        terminal.shows("no answer from 127.0.0.1")
        api.process.wait()
        processes.start_api(api.port, model="tests.models.slow:predict")
        terminal.shows("\nready")
        terminal.type(b"xqqx")
        assert terminal.process.wait(10) == 0
        assert terminal.attributes == terminal.before
        assert "Traceback" not in terminal.shown


def test_a_terminal_that_goes_away() -> None:
    """Without a signal, as that of another session."""
    with Terminal(f"http://127.0.0.1:{free_port()}") as terminal:
        terminal.shows("no answer from 127.0.0.1")
        terminal.close()
        terminal.process.wait(10)


def test_ctrl_c_no_color_and_nobody_there() -> None:
    with Terminal(f"http://127.0.0.1:{free_port()}", NO_COLOR="1") as terminal:
        shown = terminal.shows("no answer from 127.0.0.1")
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(10) == 130
        assert terminal.attributes == terminal.before


def _top(url: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "predictor", "top", "--interval", "0.2", "--url", url]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], text=True, cwd=ROOT, stdout=pipe, stderr=pipe)


def test_lines_without_a_terminal(talking: tuple[Api, Client]) -> None:
    api, client = talking
    url = f"http://127.0.0.1:{api.port}"
    with _top(url) as plain, _top(url, "--json") as as_json:
        assert plain.stdout
        assert as_json.stdout
        line = plain.stdout.readline()
        as_json.stdout.readline()
        client.submit("0").wait()
        assert re.match(r'time="2\S+Z" health="ready" ', line)
        assert 'model_version="[v7]"' in line
        assert {"queue_depth=0", "slots=3", "workers=1", "recovered_total=0"} <= {*line.split()}
        for _ in range(50):
            row = json.loads(as_json.stdout.readline())
            if row["predictions_total_per_second"]:
                break
        assert row["predictions_total_succeeded_per_second"] > 0
        assert row["mean_run_seconds"] is not None
        api.process.signal(signal.SIGKILL)
        while "error" not in (row := json.loads(as_json.stdout.readline())):
            pass
        assert row["error"].startswith("no answer from 127.0.0.1")
        plain.stdout.close()
        as_json.kill()
        assert plain.wait(10) == 141


def test_exit_status_at_the_start(served: Api, processes: Processes) -> None:
    api = processes.api(api_keys=f"me:{KEY}")
    for url, status, says in (
        (f"http://127.0.0.1:{free_port()}", 69, "no answer from 127.0.0.1"),
        (f"http://127.0.0.1:{served.port}/docs", 69, "/metrics: 404 Not Found"),
        (f"http://127.0.0.1:{api.port}", 2, "/metrics: Send a key of this API"),
    ):
        with _top(url) as top:
            out, err = top.communicate(timeout=20)
        assert (top.returncode, out) == (status, "")
        assert err.startswith(f"predictor: {says}")
