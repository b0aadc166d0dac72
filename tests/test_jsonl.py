"""`predictor predict --jsonl` against a real api: order, bounds, and going on after any end."""

import asyncio
import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from predictor.__main__ import main
from predictor.client import AsyncClient, jsonl
from predictor.client.asynchronous import Body
from tests.processes import Api, Processes, eventually

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `predictor predict --jsonl`; answers its exit status, output and errors."""

    def run(api: Api, *arguments: str) -> tuple[int, str, str]:
        status = main(["predict", "--url", _url(api), "--jsonl", *arguments])
        return status, *capsys.readouterr()

    return run


#: A process of its own.
COMMAND = ("python", "-m", "predictor", "predict", "--jsonl")


def _url(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"


def _lines(*texts: str) -> str:
    return "".join(f'{{"input":"{text}"}}\n' for text in texts)


def _results(text: str) -> list[tuple[str, str]]:
    return [(line["input"], line["result"]) for line in map(json.loads, text.splitlines())]


def test_results_are_in_order(slow: Api, run: Run) -> None:
    texts = ["0.3", "0.01", "0.2", "0", "0.1"]
    Path("in").write_text('"0.3"\n\n' + _lines(*texts[1:]).rstrip())
    status, out, err = run(slow, "in", "--concurrency", "4")
    assert (status, err) == (0, "")
    assert _results(out) == [(text, text) for text in texts]
    assert run(slow, "in", "--output", "out") == (0, "", "")
    assert Path("out").read_text() == out
    assert sorted(path.name for path in Path().iterdir()) == ["in", "out"]


def test_failed_lines_have_errors(processes: Processes, run: Run) -> None:
    model = "tests.models.raises:predict"
    api = processes.api(model=model, max_body=1000)
    processes.worker(model=model)
    Path("in").write_text(_lines("a", "refused", "x" * 1000, "b"))
    status, out, _ = run(api, "in")
    assert status == 1
    first, refused, large, last = map(json.loads, out.splitlines())
    assert (first["result"], last["result"]) == ("a", "b")
    assert refused["error"] == "The text must not be 'refused'."
    assert api.read(refused["prediction_id"]).status_code == 422
    assert large == {"input": "x" * 1000, "error": large["error"]}
    assert large["error"].startswith("The body is larger than 1000 bytes")


def test_an_empty_file_and_one_without_lines(served: Api, run: Run) -> None:
    for text in ("", "\n \n"):
        Path("in").write_text(text)
        assert run(served, "in") == (0, "", "")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "EOF while parsing"),
        (b'"\xff"', "invalid unicode code point"),
        (b'{"text":"x"}', 'neither {"input": \u2026} nor a JSON string'),
        (b'{"input":NaN}', "expected value"),
    ],
)
def test_invalid_line_in_a_file_stops_before_anything_runs(
    slow: Api, run: Run, line: bytes, says: str
) -> None:
    Path("in").write_bytes(b'"0 starts"\n\n' + line + b"\n")
    status, out, err = run(slow, "in", "--output", "out")
    assert (status, out) == (2, "")
    assert err.startswith(f"predictor: in: line 3: {says}")
    assert not Path("out").exists()


def test_invalid_line_in_a_pipe_has_an_error(slow: Api, run: Run) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=['"0"\n"\n"0.01"\n'])
    writer.start()
    status, out, _ = run(slow, "pipe")
    writer.join()
    first, second, third = map(json.loads, out.splitlines())
    assert (status, first["result"], third["result"]) == (1, "0", "0.01")
    assert second["error"].startswith("line 2: ")


def test_reading_ahead_is_bounded(slow: Api) -> None:
    read = []

    def lines() -> Iterator[Body]:
        for number in range(40):
            read.append(number)
            yield {"input": "0.3" if number == 0 else "0"}

    written: list[int] = []
    output = jsonl.Results(lambda _: written.append(len(read)), "a run")

    async def run() -> None:
        async with AsyncClient(_url(slow), retry_for=1) as client:
            await jsonl.predict_lines(lines(), output, 2, lambda: None, client)

    asyncio.run(run())
    assert len(written) == 40
    assert 8 < written[0] < 2 * jsonl._AHEAD + 4


def test_killed_run_resumes_and_nothing_runs_twice(
    slow: Api, processes: Processes, run: Run, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    texts = [f"{0.1 if number < 4 else 0.5} {starts}" for number in range(12)]
    Path("in").write_text(_lines(*texts))
    arguments = ("in", "--output", "out", "--concurrency", "4")
    killed = processes.start(*COMMAND, *arguments, url=_url(slow))
    eventually(lambda: starts.exists() and starts.read_text().count("\n") == 8, "a second four")
    with Path("out").open() as out, pytest.raises(BlockingIOError):
        fcntl.flock(out, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert run(slow, *arguments) == (2, "", "predictor: out: another run writes it\n")
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert 4 <= len(Path("out").read_text().splitlines()) <= 8
    with Path("out").open("a") as out:
        out.write('{"input":"0.5')
    assert Path("out.run").exists()
    assert run(slow, *arguments) == (0, "", "")
    assert _results(Path("out").read_text()) == [(text, text) for text in texts]
    assert starts.read_text().count("\n") == 12
    assert not Path("out.run").exists()
    says = "predictor: out exists, and is not of an unfinished run: name another file\n"
    assert run(slow, *arguments) == (2, "", says)


@pytest.mark.parametrize("other", ['{"input":"7","result":"0"}', "", "[]"])
def test_run_does_not_resume_with_another_input(slow: Api, run: Run, other: str) -> None:
    Path("in").write_text(_lines("0", "0.01"))
    Path("out").write_text(f'{{"input":"0","result":"0"}}\n{other}\n')
    Path("out.run").write_text("a run")
    status, _, err = run(slow, "in", "--output", "out")
    assert (status, err) == (2, "predictor: out: line 2 is the result of another input\n")
    assert Path("out").read_text().count("\n") == 2
    Path("out").unlink()
    assert run(slow, "in", "--output", "out")[0] == 0, "without it, everything begins anew"


def test_ctrl_c_while_a_pipe_is_silent(slow: Api, processes: Processes) -> None:
    os.mkfifo("pipe")
    waiting = processes.start(*COMMAND, "pipe", "--output", "out", url=_url(slow))
    with Path("pipe").open("w") as pipe:
        pipe.write('"0"\n')
        pipe.flush()
        eventually(lambda: Path("out").exists() and Path("out").read_text(), "the first result")
        waiting.signal(signal.SIGINT)
        assert waiting.wait() == 130
    assert waiting.output == "predictor: the same command goes on where this one has stopped\n"


def test_api_restarts_during_a_run(processes: Processes, run: Run) -> None:
    model = "tests.models.slow:predict"
    api = processes.api(model=model)
    processes.worker(model=model)
    Path("in").write_text(_lines(*["0.1 starts"] * 20))

    def restart() -> None:
        eventually(lambda: Path("starts").exists(), "a start")
        api.process.signal(signal.SIGKILL)
        api.process.wait()
        processes.start_api(api.port, model=model)

    restarting = threading.Thread(target=restart)
    restarting.start()
    status, out, err = run(api, "in", "--concurrency", "4")
    restarting.join()
    assert (status, err) == (0, "")
    assert len(_results(out)) == 20
    assert Path("starts").read_text().count("\n") == 20
