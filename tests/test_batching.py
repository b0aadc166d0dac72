"""Batches: who waits for whom, and what fails or leaves alone."""

import asyncio
import functools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from predictor import InvalidInput, Run, batched
from predictor.errors import ConfigError, ModelFailed, PredictionError, TimedOut
from predictor.model.model import Model
from predictor.prediction import encode
from tests.processes import Api, Processes


class Seen:
    """A model, and the lists that it was called with."""

    calls: ClassVar[list[list[str]]] = []

    @batched(max_size=4, max_wait=0.02)
    def predict(self, texts: list[str]) -> list[str | Exception]:
        self.calls.append(texts)
        return [InvalidInput("no") if text == "refuse" else text.upper() for text in texts]


@pytest.fixture
def seen() -> Seen:
    Seen.calls.clear()
    return Seen()


class Gate:
    """An async model whose calls wait until they are let through."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open, self.came, self.canceled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @batched(max_size=4, max_wait=0.02)
    async def predict(self, texts: list[str]) -> list[str]:
        self.calls.append(texts)
        self.came.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.canceled.set()
            raise
        return texts


async def outcome(model: Model, value: Any, seconds: float = 5) -> Any:
    """The result, or the error."""
    try:
        return json.loads(await model.run(encode(value), seconds))
    except PredictionError as error:
        return error


async def outcomes(model: Model, *values: Any) -> list[Any]:
    return await asyncio.gather(*(outcome(model, value) for value in values))


@batched(max_size=2)
def in_a_thread(numbers: list[int]) -> list[float]:
    return [number / 2 for number in numbers]


@batched(max_size=2)
async def awaited(numbers: list[int]) -> tuple[float, ...]:
    return tuple(number / 2 for number in numbers)


@batched(max_size=2)
def bare(numbers):  # type: ignore[no-untyped-def]
    return [number / 2 for number in numbers]


class Scaled:
    @batched(max_size=2)
    @staticmethod
    def scale(by: float, /, numbers: list[int]) -> list[float]:
        return [number * by for number in numbers]

    @batched(max_size=2)
    def __call__(self, numbers: list[int]) -> list[float]:
        return self.scale(0.5, numbers)


KINDS = [in_a_thread, awaited, bare, Scaled(), functools.partial(Scaled.scale, 0.5)]


@pytest.mark.parametrize("target", KINDS)
async def test_any_callable_of_a_list_takes_single_predictions(target: Any) -> None:
    model = Model(target)
    assert await outcomes(model, 1, 2, 3) == [0.5, 1.0, 1.5]
    if target is not bare:
        with pytest.raises(InvalidInput, match="'input' must be a valid integer"):
            model.signature.takes.read(encode([1]))
    assert in_a_thread([1]) == [0.5], "the function itself is as it was"


async def test_the_types_are_those_of_one(seen: Seen) -> None:
    signature = Model(seen).signature
    assert [signature.takes.type, signature.gives.type] == [str, str]


async def test_who_is_alone_waits_for_nobody(seen: Seen) -> None:
    model, taken = Model(seen), list[float]()
    for _ in range(3):
        began = time.monotonic()
        assert await outcome(model, "a") == "A"
        taken.append(time.monotonic() - began)
    assert min(taken) < 0.015
    assert seen.calls == [["a"]] * 3


async def test_what_comes_together_goes_together_up_to_max_size(seen: Seen) -> None:
    assert await outcomes(Model(seen), *"abcdef") == [*"ABCDEF"]
    assert seen.calls == [[*"abcd"], [*"ef"]]


async def test_what_waits_while_the_model_is_busy_goes_together() -> None:
    gate = Gate()
    model = Model(gate)
    first = asyncio.create_task(outcome(model, "a"))
    await gate.came.wait()
    others = [asyncio.create_task(outcome(model, text)) for text in "bcd"]
    await asyncio.sleep(0.03)
    assert gate.calls == [["a"]], "one call at a time"
    gate.open.set()
    assert await asyncio.gather(first, *others) == [*"abcd"]
    assert gate.calls == [["a"], [*"bcd"]]


async def test_as_many_as_last_time_are_waited_for_up_to_max_wait(seen: Seen) -> None:
    model = Model(seen)
    await outcomes(model, *"abc")
    late = [asyncio.create_task(outcome(model, text)) for text in "de"]
    await asyncio.sleep(0.002)
    assert seen.calls == [[*"abc"]]
    assert await outcome(model, "f") == "F"
    await asyncio.gather(*late)
    assert seen.calls[1:] == [[*"def"]]
    began = time.monotonic()
    assert await outcome(model, "g") == "G"
    assert 0.015 < time.monotonic() - began < 1
    assert await outcome(model, "h") == "H"


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("kind", [ValueError, MemoryError, SystemExit, InvalidInput])
async def test_one_that_makes_the_call_raise_fails_alone(
    is_async: bool, kind: type[BaseException]
) -> None:
    sizes = []

    @batched(max_size=32)
    def predict(texts: list[str]) -> list[str]:
        sizes.append(len(texts))
        if "bad" in texts:
            raise kind("the model's secret")
        return texts

    @batched(max_size=32)
    async def predict_async(texts: list[str]) -> list[str]:
        return predict(texts)

    texts = [str(number) for number in range(31)]
    texts.insert(13, "bad")
    result = await outcomes(Model(predict_async if is_async else predict), *texts)
    expected = InvalidInput if kind is InvalidInput else ModelFailed
    assert type(result.pop(13)) is expected
    assert result == texts[:13] + texts[14:]
    assert sizes == [32, 16, 8, 8, 4, 4, 2, 1, 1, 2, 16]


async def test_results_fail_alone(seen: Seen) -> None:
    assert [str(r) for r in await outcomes(Model(seen), "a", "refuse", "b")] == ["A", "no", "B"]
    assert len(seen.calls) == 1

    bad = {1: ValueError("the model's secret"), 2: "text", 3: float("nan"), 4: object()}

    @batched(max_size=8)
    async def predict(numbers: list[int]) -> list[float | ValueError]:
        return [bad.get(number, 0.5) for number in numbers]  # type: ignore[misc]

    result = await outcomes(Model(predict), *range(6))
    assert [result[0], result[5]] == [0.5, 0.5]
    assert [type(each) for each in result[1:5]] == [ModelFailed] * 4
    messages = ["failed on this", "does not match", "result is NaN", "not JSON"]
    assert all(part in str(each) for part, each in zip(messages, result[1:5], strict=True))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["a"], "returned 1 results for a batch of 3 inputs"),
        ("abc", "returned a str for"),
        (None, "returned a NoneType for"),
        ({"a": 1, "b": 2, "c": 3}, "returned a dict for"),
        (iter("abc"), "returned a str_.*iterator for"),
    ],
)
async def test_a_wrong_number_of_results_fails_all(answer: Any, message: str) -> None:
    calls = []

    @batched(max_size=4)
    def predict(texts):  # type: ignore[no-untyped-def]
        calls.append(texts)
        return answer

    for error in await outcomes(Model(predict), *"abc"):
        with pytest.raises(ModelFailed, match=message):
            raise error
    assert len(calls) == 1, "not in halves"


async def test_who_leaves_while_it_waits_is_left_out() -> None:
    gate = Gate()
    model = Model(gate)
    first = asyncio.create_task(outcome(model, "a"))
    await gate.came.wait()
    second, third = (asyncio.create_task(outcome(model, text)) for text in "bc")
    assert isinstance(await outcome(model, "d", 0.01), TimedOut)
    second.cancel()
    await asyncio.wait({second})
    gate.open.set()
    assert [await first, await third] == ["a", "c"]
    assert gate.calls == [["a"], ["c"]]


async def test_a_running_call_ends_when_all_have_left() -> None:
    gate = Gate()
    model = Model(gate)
    tasks = [asyncio.create_task(model.run(encode(text), 5)) for text in "abc"]
    await gate.came.wait()
    later = asyncio.create_task(outcome(model, "d"))
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks[:2])
    assert not gate.canceled.is_set()
    assert not tasks[2].done()
    tasks[2].cancel()
    await asyncio.wait_for(gate.canceled.wait(), 5)
    gate.open.set()
    assert await later == "d"
    assert model.abandoned == 0


async def test_the_others_get_their_results_when_one_leaves() -> None:
    gate = Gate()
    model = Model(gate)
    stays = asyncio.create_task(outcome(model, "a"))
    assert isinstance(await outcome(model, "b", 0.02), TimedOut)
    gate.open.set()
    assert await stays == "a"
    assert [sorted(call) for call in gate.calls] == [["a", "b"]]


async def test_a_call_that_outlives_its_batch_takes_the_slots_of_a_full_one() -> None:
    release = threading.Event()

    @batched(max_size=4)
    def predict(texts: list[str]) -> list[str]:
        if "stuck" in texts:
            release.wait(10)
        return texts

    model = Model(predict)
    assert (model.slots(1), model.slots(10)) == (8, 10)
    assert isinstance(await outcome(model, "stuck", 0.02), TimedOut)
    assert await outcome(model, "a") == "a", "the next call has started"
    assert model.abandoned == 4
    release.set()
    while model.abandoned:
        await asyncio.sleep(0.001)


async def test_a_coroutine_that_ignores_its_cancel_takes_the_slots_too() -> None:
    release = asyncio.Event()

    @batched(max_size=4)
    async def predict(texts: list[str]) -> list[str]:
        while "stuck" in texts and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return texts

    model = Model(predict)
    assert isinstance(await outcome(model, "stuck", 0.02), TimedOut)
    assert await outcome(model, "a") == "a"
    assert model.abandoned == 4
    release.set()
    while model.abandoned:
        await asyncio.sleep(0.001)


@batched()
def with_run(texts: list[str], run: Run) -> list[str]:
    return texts


@batched()
def generator(texts: list[str]) -> Iterator[str]:
    yield from texts


@batched()
def several(texts: list[str], temperature: float = 0.5) -> list[str]:
    return texts


@batched()
def no_list(text: str) -> list[str]:
    return [text]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (with_run, "@batched takes one list: remove 'run'"),
        (generator, "@batched must return a list: it cannot be a generator"),
        (several, "@batched takes one list: remove 'temperature'"),
        (no_list, r"@batched takes a list: annotate 'text' as list\[str\]"),
    ],
)
def test_what_cannot_be_batched_is_refused(target: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Model(target)


@pytest.mark.parametrize("terms", [{"max_size": 0}, {"max_wait": -1}, {"max_wait": float("nan")}])
def test_terms_that_make_no_sense_are_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_size must be at least 1"):
        batched(**terms)


async def _client(port: int, head: bytes, text: str, until: float) -> list[float]:
    """Predict on one connection, again and again; the seconds that each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body, seconds = encode({"input": text}), []
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + head
    while (began := time.monotonic()) < until:
        writer.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")
        size = int(answer.lower().partition(b"content-length:")[2].split()[0])
        assert json.loads(await reader.readexactly(size))["result"] == text.upper()
        seconds.append(time.monotonic() - began)
    writer.close()
    return seconds


def _load(api: Api, head: bytes, clients: int, seconds: float) -> list[float]:
    """The seconds that each of the predictions took that so many clients made meanwhile."""

    async def load() -> list[list[float]]:
        until = time.monotonic() + seconds
        each = (_client(api.port, head, f"text-{number}", until) for number in range(clients))
        return await asyncio.gather(*each)

    return [took for client in asyncio.run(load()) for took in client]


@pytest.mark.alone
@pytest.mark.parametrize("head", [b"", b"Prefer: wait=10\r\n"], ids=["sync", "async"])
def test_batches_are_ten_times_as_fast_over_http(processes: Processes, head: bytes) -> None:
    alone = {}
    for name in ("predict_one", "predict_many"):
        settings = {"model": f"tests.models.locked:{name}", "concurrency": 64}
        api = processes.api(**settings)
        started = [api.process, *([processes.worker(**settings)] if head else [])]
        alone[name] = statistics.median(_load(api, head, 1, 0.4))
        if name == "predict_one":
            for process in started:
                process.stop()
    assert alone["predict_many"] - alone["predict_one"] < 0.002
    # Unbatched, 50 a second are possible: a call takes 20 ms, under a lock.
    for _ in range(5):
        began = time.monotonic()
        rate = len(_load(api, head, 64, 0.5)) / (time.monotonic() - began)
        if rate > 500:
            break
    assert rate > 500
