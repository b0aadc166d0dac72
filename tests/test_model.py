import asyncio
import json
import math
import threading
import time
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from predictor.config import Config
from predictor.errors import ConfigError, InvalidInput, ModelFailed, TimedOut
from predictor.model.loading import configured_model
from predictor.model.model import Model
from predictor.model.run import Run
from predictor.prediction import PredictionId, encode
from tests.models import endless, raises, results
from tests.models.callables import shout


def load(path: str) -> Model:
    return configured_model(Config(model=path))


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("tests.models.echo:predict", b'"abc"'),
        ("tests.models.echo:predict_in_thread", b'"abc"'),
        ("tests.models.callables:shout", b'"ABC"'),
        ("tests.models.callables:Namespace.inner", b'"ABC"'),
        ("tests.models.callables:plain", b'"abc!"'),
        ("tests.models.callables:partial", b'"abc?"'),
        ("tests.models.callables:returns_awaitable", b'"cba"'),
        ("builtins:len", b"3"),
    ],
)
async def test_any_callable_of_a_text_is_a_model(path: str, result: bytes) -> None:
    assert await load(path).run(encode("abc"), 5) == result


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.models.echo", "must look like package.module:name"),
        (":predict", "must look like"),
        ("tests.models.echo:", "must look like"),
        ("no_such.module:predict", "no module 'no_such' in /.*; start in its folder"),
        ("tests.models.nothing:predict", "no module 'tests.models.nothing' in /"),
        ("tests.models.echo:nothing", r"\(/.*echo.py\) has no 'nothing'"),
        ("tests.models.echo:predict.deeper", "has no 'predict.deeper'"),
        ("tests.models.broken:predict", r"ValueError: no weights found \(/.*broken.py, line 3\)"),
        (
            "tests.models.needs_missing:predict",
            "a_package_that_nobody_has.*needs_missing.py, line 3.*; install .* into /",
        ),
        ("./tests/my_model.py:predict", "is a file; name its module: tests.my_model:predict$"),
        ("my_model.py", "is a file; name its module: my_model:predict$"),
        ("tests.models.callables:number", "is int; name a function, a class"),
        ("tests.models.results:Point", "its constructor needs arguments: .*'x'"),
        (
            "tests.models.callables:needs_two",
            "'other' of several inputs has no annotation; .*: Run",
        ),
        ("..echo:predict", "importing"),
        ("tests.models.odd:Property", r"TypeError: .*"),
    ],
)
def test_load_errors_name_the_fix(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert repr(path) in str(caught.value)


def test_syntax_errors_have_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "misspelled.py").write_text("\n\ndef predict(text:\n")
    (tmp_path / "importing.py").write_text("import misspelled\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("misspelled", "importing"):
        with pytest.raises(ConfigError, match=r"SyntaxError: .*misspelled.py, line 3\)$"):
            load(f"{name}:predict")


@pytest.fixture(params=["predict", "predict_in_thread"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways of running: awaited, and in a thread."""
    name: str = request.param
    return name


@pytest.mark.parametrize("name", results.GOOD)
async def test_json_results(way: str, name: str) -> None:
    import json

    result = await Model(getattr(results, way)).run(encode(name), 5)
    assert json.loads(result) == results.GOOD[name][1]


@pytest.mark.parametrize("name", results.BAD)
async def test_results_that_are_not_json_fail_with_the_reason(way: str, name: str) -> None:
    with pytest.raises(ModelFailed, match=r"cannot be written as JSON: .+"):
        await Model(getattr(results, way)).run(encode(name), 5)


@pytest.mark.parametrize("name", endless.FAST)
async def test_endless_results_are_bounded(way: str, name: str) -> None:
    model = Model(getattr(endless, way), 2_000_000)
    tracemalloc.start()
    with pytest.raises(ModelFailed, match=r"larger than 2000000 bytes \(PREDICTOR_MAX_RESULT\)"):
        await model.run(encode(name), 30)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert model.abandoned == 0


async def test_slow_encoding_blocks_nothing_and_times_out(way: str) -> None:
    model = Model(getattr(endless, way))
    run = asyncio.create_task(model.run(encode("slow"), 0.3))
    ticks = 0
    while not run.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 5
    with pytest.raises(TimedOut):
        await run
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_stuck_encoding_keeps_its_slot() -> None:
    release = threading.Event()

    class Stuck:
        def tolist(self) -> list[Any]:
            release.wait(10)
            return [object()]

    async def predict(text: str) -> Stuck:
        return Stuck()

    model = Model(predict)
    with pytest.raises(TimedOut):
        await model.run(encode("a"), 0.05)
    assert model.abandoned == 1
    release.set()
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_slow_encoding_can_be_canceled(way: str) -> None:
    model = Model(getattr(endless, way))
    run = asyncio.create_task(model.run(encode("slow"), 60))
    await asyncio.sleep(0.1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_generator_may_raise_invalid_input(way: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await Model(getattr(endless, way)).run(encode("refuse"), 5)
    assert str(caught.value) == "Not ? this."


@pytest.mark.parametrize("size", [8, 998, 20_000])
async def test_max_result_is_inclusive(way: str, size: int) -> None:
    function = getattr(endless, way)
    assert len(await Model(function, size + 2).run(encode(str(size)), 5)) == size + 2
    with pytest.raises(ModelFailed, match="PREDICTOR_MAX_RESULT"):
        await Model(function, size + 1).run(encode(str(size)), 5)


@pytest.mark.parametrize("name", raises.RAISES)
async def test_everything_that_a_model_raises_is_a_failure(way: str, name: str) -> None:
    expected = InvalidInput if name == "refused" else ModelFailed
    with pytest.raises(expected) as caught:
        await Model(getattr(raises, way)).run(encode(name), 5)
    assert "secret" not in str(caught.value)


async def test_timeout_cancels_a_coroutine() -> None:
    ended: list[str] = []

    async def slow(text: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(text)

    model = Model(slow)
    with pytest.raises(TimedOut, match=r"0.05 s"):
        await model.run(encode("a"), 0.05)
    assert ended == ["a"]
    assert model.abandoned == 0


async def test_timed_out_thread_is_abandoned() -> None:
    release = threading.Event()
    model = Model(lambda text: release.wait(10))
    with pytest.raises(TimedOut):
        await model.run(encode("a"), 0.05)
    assert model.abandoned == 1
    release.set()
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_coroutine_that_ignores_its_cancel_is_abandoned() -> None:
    release = asyncio.Event()

    async def stubborn(text: str) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    model = Model(stubborn)
    started = time.monotonic()
    with pytest.raises(TimedOut):
        await model.run(encode("a"), 0.05)
    assert time.monotonic() - started < 1
    assert model.abandoned == 1
    release.set()
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_canceling_a_run_cancels_the_model() -> None:
    ended = asyncio.Event()

    async def slow(text: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    run = asyncio.create_task(Model(slow).run(encode("a"), 60))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.wait_for(ended.wait(), 5)


async def test_thread_does_not_block_the_event_loop() -> None:
    model = Model(lambda text: time.sleep(0.3))
    run = asyncio.create_task(model.run(encode("a"), 5))
    ticks = 0
    while not run.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 5


async def test_async_call_method_is_awaited() -> None:
    thread: list[Any] = []

    class Remember:
        async def __call__(self, text: str) -> str:
            thread.append(threading.current_thread())
            return text

    await Model(Remember()).run(encode("a"), 5)
    assert thread == [threading.main_thread()]
    assert await Model(shout).run(encode("a"), 5) == b'"A"'


async def test_what_is_no_coroutine_is_awaited_too() -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "later"

    assert await Model(lambda text: Later()).run(encode("a"), 5) == b'"later"'


async def test_second_parameter_gets_the_run() -> None:
    emitted: list[tuple[str, bytes]] = []

    def emit(kind: str, data: bytes) -> None:
        emitted.append((kind, data))

    run = Run(PredictionId("abc"), 5.0, emit)
    assert await load("tests.models.talks:predict").run(encode("1"), 1, run) == b'"abc"'
    assert emitted == [("output", b"0"), ("progress", b'{"fraction":1.0,"message":"1 of 1"}')]
    assert run.canceled, "nobody waits any more"
    assert await load("tests.models.talks:optional").run(encode("1"), 1) == b"0.7"


@pytest.mark.parametrize(
    ("fraction", "reported"), [(-1, 0.0), (2, 1.0), (math.inf, 1.0), (True, 1.0), (1, 1.0)]
)
def test_progress_is_from_0_to_1(fraction: float, reported: float) -> None:
    emitted: list[bytes] = []
    Run(PredictionId("x"), 0, lambda _, data: emitted.append(data)).progress(fraction, "x" * 5000)
    assert json.loads(emitted[0]) == {"fraction": reported, "message": "x" * 1000}


def test_invalid_progress_and_output_raise() -> None:
    run = Run(PredictionId("x"), 0)
    with pytest.raises(ValueError, match="not NaN"):
        run.progress(math.nan)
    with pytest.raises(TypeError):
        run.progress("half")  # type: ignore[arg-type]
    with pytest.raises(ModelFailed, match="cannot be written as JSON"):
        run.output(object())
    with pytest.raises(ModelFailed, match="PREDICTOR_MAX_RESULT"):
        Run(PredictionId("x"), 0, max_result=10).output("x" * 9)
