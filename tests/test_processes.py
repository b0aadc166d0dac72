import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from predictor.config import Config
from predictor.errors import ConfigError, InvalidInput, ModelFailed
from predictor.model.processes import Processes
from predictor.model.run import Run
from predictor.prediction import EventKind, Json, new_id
from tests.models import hostile
from tests.processes import ROOT, eventually

Start = Callable[..., Awaitable[Processes]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start processes; end them after the test."""
    started = []

    async def starter(function: str = "hostile:predict", **options: Any) -> Processes:
        environment = Config().environment() | options.pop("environment", {})
        options = {"count": 1, "spare": 0, "runs_per_process": 0, "max_result": 2**27} | options
        processes = Processes(f"tests.models.{function}", environment=environment, **options)
        started.append(processes)
        await processes.start()
        return processes

    yield starter
    for processes in started:
        await processes.close()


class Heard:
    """What a run has said."""

    def __init__(self) -> None:
        self.said: list[tuple[EventKind, Any]] = []
        self.run = Run(new_id(), time.time() + 30, self._emit)
        self._first = asyncio.Event()

    def _emit(self, kind: EventKind, data: Json) -> None:
        self.said.append((kind, json.loads(data)))
        self._first.set()

    async def first(self) -> Any:
        """What it has said first."""
        await asyncio.wait_for(self._first.wait(), 5)
        return self.said[0][1]


async def ask(processes: Processes, text: str) -> Any:
    call = processes.call(Json(json.dumps(text).encode()), Heard().run)
    return json.loads(await asyncio.wait_for(call, 10))


async def lag(until: "asyncio.Future[Any]") -> float:
    """The longest time, in seconds, that the loop took to come back."""
    longest, before = 0.0, time.perf_counter()
    while not until.done():
        await asyncio.sleep(0)
        longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
    return longest


def is_alive(pid: int) -> bool:
    """A zombie is not: it has ended, and only waits for init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def eventually_async(true: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(eventually, true, what)


async def test_a_process_runs_one_prediction_after_the_other(start: Start) -> None:
    processes = await start()
    pids = {await ask(processes, "pid") for _ in range(3)}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    with pytest.raises(InvalidInput, match=r"^Not this\.$"):
        await ask(processes, "refuse")
    assert await ask(processes, "stdin") == ""
    assert {await ask(processes, "pid")} == pids


async def test_a_prediction_waits_for_a_free_process(start: Start) -> None:
    processes = await start("talks:predict_in_thread", count=1, spare=1)
    began = time.monotonic()
    await asyncio.gather(*(ask(processes, "2 0.05") for _ in range(3)))
    assert time.monotonic() - began >= 0.3


async def test_the_run_is_the_parent_s(start: Start) -> None:
    processes, heard = await start("hostile:told"), Heard()
    result = json.loads(await processes.call(Json(b'"a b"'), heard.run))
    assert result == {"id": heard.run.id, "deadline": heard.run.deadline, "text": "a b"}


@pytest.mark.parametrize("function", ["talks:predict", "talks:predict_in_thread"])
async def test_all_that_a_run_says_arrives_in_order(start: Start, function: str) -> None:
    processes, heard = await start(function), Heard()
    call = processes.call(Json(b'"2500"'), heard.run)
    longest = await lag(call)
    assert json.loads(call.result()) == heard.run.id
    pieces = [data for kind, data in heard.said if kind is EventKind.OUTPUT]
    assert pieces == list(range(2500))
    assert heard.said[-1] == (EventKind.PROGRESS, {"fraction": 1.0, "message": "2500 of 2500"})
    assert longest < 0.1


async def test_a_thread_that_is_left_behind_does_not_talk_into_the_next_run(start: Start) -> None:
    processes = await start()
    assert await ask(processes, "haunt") == "gone"
    heard = Heard()
    call = processes.call(Json(b'"spin"'), heard.run)
    await asyncio.wait({call}, timeout=0.2)
    assert not heard.said
    call.cancel()


@pytest.mark.parametrize("what", hostile.ENDLESS)
@pytest.mark.parametrize("function", ["hostile:predict", "hostile:blocking"])
async def test_a_canceled_prediction_ends_whatever_it_does(
    start: Start, function: str, what: str
) -> None:
    processes, heard = await start(function), Heard()
    call = processes.call(Json(json.dumps(f"family {what}").encode()), heard.run)
    family = await heard.first()
    call.cancel()
    began = time.monotonic()
    longest = await lag(call)
    assert time.monotonic() - began < 0.5
    assert call.cancelled()
    await eventually_async(lambda: not any(map(is_alive, family)), "an end of the family")
    assert longest < 0.1


async def test_a_canceled_twice_prediction_ends_at_once(start: Start) -> None:
    processes, heard = await start(), Heard()
    call = processes.call(Json(b'"family spin"'), heard.run)
    await heard.first()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    began = time.monotonic()
    await asyncio.wait({call})
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("function", ["hostile:asynchronous", "hostile:attentive"])
async def test_who_ends_when_canceled_keeps_its_process(start: Start, function: str) -> None:
    processes, heard = await start(function), Heard()
    pid = await ask(processes, "pid")
    call = processes.call(Json(b'"long"'), heard.run)
    await heard.first()
    call.cancel()
    await asyncio.wait({call}, timeout=0.5)
    assert call.cancelled()
    assert await ask(processes, "pid") == pid


@pytest.mark.parametrize(
    ("what", "how"),
    [("segfault", "signal 11, Segm"), ("exit", "status 9"), ("signal", "signal 9, Killed")],
)
async def test_a_crash_fails_one_prediction_and_a_spare_takes_over(
    start: Start, caplog: pytest.LogCaptureFixture, what: str, how: str
) -> None:
    processes = await start(spare=1)
    await eventually_async(lambda: len(processes._children) == 2, "a spare")
    pid = await ask(processes, "pid")
    began = time.monotonic()
    with pytest.raises(ModelFailed) as caught:
        await ask(processes, f"family {what}")
    crashed = time.monotonic()
    other = await ask(processes, "pid")
    assert time.monotonic() - crashed < 0.05
    assert crashed - began < 1
    assert f"process {pid} ended with {how}" in str(caught.value.__cause__)
    assert f"process {pid} ended with {how}" in caplog.text
    assert other != pid
    assert processes.alive == 1
    await eventually_async(lambda: len(processes._children) == 2, "another spare")


async def test_a_process_is_replaced_after_so_many_runs(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    processes = await start(runs_per_process=2)
    pids = [await ask(processes, "pid") for _ in range(5)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
    assert caplog.text.count("ended with status 0 (PREDICTOR_RUNS_PER_PROCESS)") == 2


async def test_stop_signals_are_the_parent_s_to_handle(start: Start) -> None:
    processes = await start()
    pid = await ask(processes, "pid")
    os.kill(pid, signal.SIGINT)
    assert await ask(processes, "own SIGTERM") is None
    assert await ask(processes, "fork") == -signal.SIGTERM
    assert await ask(processes, "pid") == pid


async def test_large_values_do_not_hold_up_the_loop(start: Start) -> None:
    processes = await start("echo:predict_in_thread")
    large = Json(b'"%b"' % (b"x" * 50_000_000))
    call = processes.call(large, Heard().run)
    longest = await lag(call)
    assert call.result() == large
    assert longest < 0.1


async def test_a_process_that_reads_nothing_holds_up_nobody(start: Start) -> None:
    processes = await start()
    os.kill(await ask(processes, "pid"), signal.SIGSTOP)
    call = processes.call(Json(b'"%b"' % (b"x" * 5_000_000)), Heard().run)
    await asyncio.wait({call}, timeout=0.1)
    call.cancel()
    await asyncio.wait({call}, timeout=0.5)
    assert call.cancelled()
    assert await ask(processes, "pid")


async def test_what_is_not_understood_ends_the_process(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    processes = await start()
    with pytest.raises(ModelFailed):
        await ask(processes, "channel")
    assert "cannot be understood" in caplog.text
    assert await ask(processes, "pid")


async def test_what_the_model_raises_is_shown_with_its_place(start: Start) -> None:
    processes = await start("raises:predict")
    with pytest.raises(ModelFailed, match=r"^The model failed on this input\.$") as caught:
        await ask(processes, "exception")
    assert "raises.py" in str(caught.value.__cause__)
    assert "the model's secret" in str(caught.value.__cause__)


async def test_what_the_model_prints_is_the_parent_s_output(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    await ask(await start(), "print hello")
    assert capfd.readouterr().out == "hello\n"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("broken:predict", "'tests.models.broken:predict': importing .* ValueError: no weights"),
        ("dies_early:predict", "while it loaded, process [0-9]+ ended with status 5"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_refused_at_the_start(
    start: Start, function: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^PREDICTOR_MODEL: .*{sentence}"):
        await start(function, count=2)


async def test_a_spare_that_cannot_be_loaded_is_one_warning(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = tmp_path / "loaded"
    processes = await start(spare=1, environment={"LOADS": "1", "LOADED": str(loaded)})
    await eventually_async(lambda: loaded.stat().st_size >= 3, "a second try")
    assert caplog.text.count("a process does not start") == 1
    assert "MemoryError: no room for another" in caplog.text
    pid = await ask(processes, "pid")
    with pytest.raises(ModelFailed):
        await ask(processes, "exit")
    assert processes.alive == 0
    loaded.unlink()
    assert await ask(processes, "pid") != pid


async def test_close_ends_what_runs_and_what_loads(start: Start) -> None:
    processes, heard = await start(spare=1), Heard()
    call = processes.call(Json(b'"family hold"'), heard.run)
    waiting = processes.call(Json(b'"pid"'), Heard().run)
    family = await heard.first()
    began = time.monotonic()
    await processes.close()
    assert time.monotonic() - began < 0.5
    assert call.done()
    assert waiting.cancelled()
    await eventually_async(lambda: not any(map(is_alive, family)), "an end of the family")


PARENT = """
import asyncio, sys, time, uvloop
from predictor.model.processes import Processes
from predictor.model.run import Run

async def main():
    options = dict(count=1, spare=1, runs_per_process=0, environment={})
    processes = Processes("tests.models.hostile:predict", 2**20, **options)
    await processes.start()
    while len(processes._children) < 2:
        await asyncio.sleep(0.01)
    run = Run("x", time.time() + 30, lambda kind, data: print(data.decode(), flush=True))
    await processes.call(b'"family hold"', run)

(uvloop if sys.argv[1] == "uvloop" else asyncio).run(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_is_left_of_a_killed_parent(loop: str) -> None:
    command = [sys.executable, "-c", PARENT, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        family = json.loads(parent.stdout.readline())
        listed = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(parent.pid)], text=True)
        everyone = {*family, *map(int, listed.split())}
        assert len(everyone) == 4
        parent.kill()
        eventually(lambda: not any(map(is_alive, everyone)), "an end of all", 1)
