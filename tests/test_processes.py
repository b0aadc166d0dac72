import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from predictor.config import Config
from predictor.errors import ConfigError, InvalidInput, ModelFailed
from predictor.model.frames import Kind, frame, read
from predictor.model.processes import Processes
from predictor.model.run import Run
from predictor.prediction import EventKind, Json, new_id
from tests.models import hostile
from tests.processes import ROOT, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Longest step of the loop, in seconds. Most are 100 times shorter; tests run beside each other.
SMOOTH = 1.0

Start = Callable[..., Awaitable[Processes]]


@contextlib.asynccontextmanager
async def running(function: str, count: int = 1, **options: Any) -> AsyncIterator[Processes]:
    settings: dict[str, Any] = {"spare": 0, "max_result": 2**27} | options
    processes = Processes(Config(model=f"tests.models.{function}", **settings), count)
    await processes.start()
    yield processes
    await processes.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Processes]:
    """One process of a `def`, and one spare, for all tests."""
    async with running("hostile:predict", spare=1) as processes:
        yield processes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_async() -> AsyncIterator[Processes]:
    """One process of an `async def`, and one spare, for all tests."""
    async with running("hostile:asynchronous", spare=1) as processes:
        yield processes


@pytest.fixture
def both(shared: Processes, shared_async: Processes) -> dict[str, Processes]:
    return {"def": shared, "async def": shared_async}


@pytest_asyncio.fixture(loop_scope="module")
async def start() -> AsyncIterator[Start]:
    """Start processes; end them after the test."""
    async with contextlib.AsyncExitStack() as stack:
        yield lambda *args, **options: stack.enter_async_context(running(*args, **options))


async def both_ready(processes: Processes) -> None:
    """Wait until there is a spare, too."""
    ready = lambda: sum(c.is_usable for c in processes._children) == 2  # noqa: E731
    await eventually_async(ready, "a spare")


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
        await asyncio.sleep(0.001)
        longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
    return longest


def is_alive(pid: int) -> bool:
    """A zombie is not: it has ended, and only waits for init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def everybody() -> list[tuple[int, int]]:
    """Each process of this machine, with its parent."""
    stats = [path.read_text().rpartition(")") for path in Path("/proc").glob("[0-9]*/stat")]
    return [(int(stat[0].split()[0]), int(stat[2].split()[1])) for stat in stats]


async def eventually_async(true: Callable[[], Any], what: str, seconds: float = 15) -> None:
    await asyncio.to_thread(eventually, true, what, seconds)


async def test_a_process_runs_one_prediction_after_the_other(shared: Processes) -> None:
    processes = shared
    pids = {await ask(processes, "pid") for _ in range(3)}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    with pytest.raises(InvalidInput, match=r"^Not this\.$"):
        await ask(processes, "refuse Not this.")
    assert await ask(processes, "stdin") == ""
    assert {await ask(processes, "pid")} == pids


async def test_a_prediction_waits_for_a_free_process(shared: Processes) -> None:
    await both_ready(shared)
    began = time.monotonic()
    await asyncio.gather(*(ask(shared, "sleep") for _ in range(3)))
    assert time.monotonic() - began >= 0.3


async def test_the_run_is_the_parent_s(shared: Processes) -> None:
    heard = Heard()
    result = json.loads(await shared.call(Json(b'"told a b"'), heard.run))
    assert result == [heard.run.id, heard.run.deadline, "a b"]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_all_that_a_run_says_arrives_in_order(both: dict[str, Processes], kind: str) -> None:
    processes, heard = both[kind], Heard()
    call = processes.call(Json(b'"say 2500"'), heard.run)
    longest = await lag(call)
    assert json.loads(call.result()) == "said"
    pieces = [data for kind, data in heard.said if kind is EventKind.OUTPUT]
    assert pieces == list(range(2500))
    assert heard.said[-1] == (EventKind.PROGRESS, {"fraction": 1.0, "message": "2500 of 2500"})
    assert longest < SMOOTH


async def test_a_thread_that_is_left_behind_does_not_talk_into_the_next_run(
    shared: Processes,
) -> None:
    processes = shared
    assert await ask(processes, "haunt") == "gone"
    heard = Heard()
    call = processes.call(Json(b'"sleep"'), heard.run)
    await call
    assert not heard.said


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "what"), [*(("def", what) for what in hostile.ENDLESS), ("async def", "hold")]
)
async def test_a_canceled_prediction_ends_whatever_it_does(
    both: dict[str, Processes], kind: str, what: str
) -> None:
    processes, heard = both[kind], Heard()
    await both_ready(processes)
    call = processes.call(Json(json.dumps(f"family {what}").encode()), heard.run)
    family = await heard.first()
    call.cancel()
    began = time.monotonic()
    longest = await lag(call)
    assert time.monotonic() - began < 0.5
    assert call.cancelled()
    assert await ask(processes, "pid") not in family
    await eventually_async(lambda: not any(map(is_alive, family)), "an end of the family")
    assert longest < SMOOTH


async def test_a_canceled_twice_prediction_ends_at_once(shared: Processes) -> None:
    processes, heard = shared, Heard()
    call = processes.call(Json(b'"family spin"'), heard.run)
    await heard.first()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    began = time.monotonic()
    await asyncio.wait({call})
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_who_ends_when_canceled_keeps_its_process(
    both: dict[str, Processes], kind: str
) -> None:
    processes, heard = both[kind], Heard()
    await both_ready(processes)
    pid = await ask(processes, "pid")
    call = processes.call(Json(b'"wait"'), heard.run)
    await heard.first()
    call.cancel()
    await asyncio.wait({call}, timeout=0.5)
    assert call.cancelled()
    assert await ask(processes, "pid") == pid


@pytest.mark.alone
@pytest.mark.parametrize(
    ("what", "how"),
    [("segfault", "signal 11, Segm"), ("exit", "status 9")],
)
async def test_a_crash_fails_one_prediction_and_a_spare_takes_over(
    shared: Processes, caplog: pytest.LogCaptureFixture, what: str, how: str
) -> None:
    processes = shared
    await both_ready(processes)
    pid = await ask(processes, "pid")
    began = time.monotonic()
    with pytest.raises(ModelFailed) as caught:
        await ask(processes, f"family {what}")
    crashed = time.monotonic()
    other = await ask(processes, "pid")
    assert time.monotonic() - crashed < 0.05
    assert crashed - began < 1
    assert f"process {pid} of the model ended with {how}" in str(caught.value.__cause__)
    assert f"process {pid} of the model ended with {how}" in caplog.text
    assert other != pid
    assert processes.alive == 1


async def test_a_process_is_replaced_after_so_many_runs(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    processes = await start("hostile:predict", runs_per_process=2, spare=1)
    pids = [await ask(processes, "pid") for _ in range(5)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
    assert "ended with status 0 (PREDICTOR_RUNS_PER_PROCESS)" in caplog.text


@pytest.mark.parametrize(("runs_per_process", "each"), [(0, 100), (30, 30)])
async def test_processes_that_answer_at_once_serve_the_next_undisturbed(
    start: Start, runs_per_process: int, each: int
) -> None:
    """One is free when it has answered, before the caller of that answer goes on."""
    count = 4
    processes = await start("hostile:asynchronous", count=count, runs_per_process=runs_per_process)

    async def many() -> set[int]:
        return {await ask(processes, "pid") for _ in range(each)}

    pids: set[int] = set().union(*await asyncio.gather(*(many() for _ in range(3 * count))))
    assert len(pids) == count or runs_per_process


async def test_stop_signals_are_the_parent_s_to_handle(shared: Processes) -> None:
    processes = shared
    pid = await ask(processes, "pid")
    os.kill(pid, signal.SIGINT)
    assert await ask(processes, "own SIGTERM") is None
    assert await ask(processes, "fork") == -signal.SIGTERM
    assert await ask(processes, "pid") == pid


async def test_large_values_do_not_hold_up_the_loop(shared: Processes) -> None:
    large = Json(b'"%b"' % (b"x" * 20_000_000))
    call = shared.call(large, Heard().run)
    longest = await lag(call)
    assert call.result() == large
    assert longest < SMOOTH


async def test_a_process_that_reads_nothing_holds_up_nobody(shared: Processes) -> None:
    processes = shared
    await both_ready(processes)
    os.kill(await ask(processes, "pid"), signal.SIGSTOP)
    call = processes.call(Json(b'"%b"' % (b"x" * 5_000_000)), Heard().run)
    await asyncio.wait({call}, timeout=0.1)
    call.cancel()
    await asyncio.wait({call}, timeout=0.5)
    assert call.cancelled()
    assert await ask(processes, "pid")


async def test_what_is_not_understood_ends_the_process(
    shared: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    processes = shared
    await both_ready(processes)
    with pytest.raises(ModelFailed):
        await ask(processes, "channel")
    assert "cannot be understood" in caplog.text
    assert await ask(processes, "pid")


async def test_a_frame_that_breaks_off_is_an_end() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(frame(Kind.RESULT, b"12")[:-1])
    reader.feed_eof()
    with pytest.raises(EOFError):
        await read(reader, 100)


async def test_output_that_comes_too_fast_ends_the_process(
    shared_async: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def emit(*_: object) -> None:
        raise ModelFailed("Too fast.")

    run = Run(new_id(), time.time() + 30, emit)
    with pytest.raises(ModelFailed, match="Too fast"):
        await asyncio.wait_for(shared_async.call(Json(b'"wait"'), run), 5)
    assert await ask(shared_async, "pid")
    await eventually_async(lambda: "(its output came too fast)" in caplog.text, "its end")
    assert "cannot be understood" not in caplog.text


async def test_one_crash_after_another_delays_no_start(shared: Processes) -> None:
    """Each is the first prediction of its process, as cancels may be."""
    began = time.monotonic()
    for _ in range(8):
        with pytest.raises(ModelFailed):
            await ask(shared, "exit")
    assert await ask(shared, "pid")
    assert time.monotonic() - began < 20


async def test_what_the_model_raises_is_shown_with_its_place(shared: Processes) -> None:
    with pytest.raises(ModelFailed, match=r"^The model failed on this input\.$") as caught:
        await ask(shared, "raise")
    assert "hostile.py" in str(caught.value.__cause__)
    assert "division by zero" in str(caught.value.__cause__)


async def test_a_model_that_cancels_itself_has_failed(
    shared_async: Processes, start: Start
) -> None:
    with pytest.raises(ModelFailed):
        await ask(shared_async, "give up")
    processes = await start("hostile:in_batches")
    with pytest.raises(ModelFailed):
        await processes.call_batch([Json(b'"a"')], Heard().run)


async def test_what_the_model_prints_is_a_line_of_the_log(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    await ask(await start("hostile:predict"), "print hello")
    records = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [each["message"] for each in records if each["logger"] == "model.stdout"] == ["hello"]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("broken:predict", "'tests.models.broken:predict': importing .* ValueError: no weights"),
        ("hostile:Heavy", "starting it raised MemoryError: too heavy .*hostile.py, line"),
        (
            "dies_early:predict",
            "while it was loaded, process [0-9]+ of the model ended with status 5",
        ),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_refused_at_the_start(
    start: Start, function: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^PREDICTOR_MODEL: .*{sentence}"):
        await start(function)


async def test_a_spare_that_cannot_be_loaded_is_one_warning(
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = tmp_path / "loaded"
    monkeypatch.setenv("LOADS", "1")
    monkeypatch.setenv("LOADED", str(loaded))
    processes = await start("hostile:predict", spare=1)
    await eventually_async(lambda: loaded.stat().st_size >= 4, "three tries to start a spare")
    assert caplog.text.count("a process of the model does not start") == 1
    assert "MemoryError: no room for another" in caplog.text
    pid = await ask(processes, "pid")
    with pytest.raises(ModelFailed):
        await ask(processes, "exit")
    assert processes.alive == 0
    loaded.unlink()
    assert await ask(processes, "pid") != pid


async def test_close_ends_what_runs_and_what_loads(start: Start) -> None:
    processes, heard = await start("hostile:predict", spare=1), Heard()
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
import asyncio, time, uvloop
from predictor.config import Config
from predictor.model.processes import Processes
from predictor.model.run import Run

async def main():
    processes = Processes(Config(model="tests.models.hostile:predict", spare=0), count=1)
    await processes.start()
    run = Run("x", time.time() + 30, lambda kind, data: print(data.decode(), flush=True))
    await processes.call(b'"family hold"', run)

uvloop.run(main())
"""


async def test_nothing_is_left_of_a_killed_parent() -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout
    family = json.loads(await parent.stdout.readline())
    children = [pid for pid in everybody() if pid[1] == parent.pid]
    everyone = {*family, *(pid for pid, _ in children)}
    assert len(everyone) == 3
    parent.kill()
    await parent.communicate()
    await eventually_async(lambda: not any(map(is_alive, everyone)), "an end of all", 1)
