"""What a model's signature says, for models of every shape, and what cannot be one."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypeAliasType

from predictor import Run
from predictor.errors import ConfigError, InvalidInput
from predictor.model.model import Model
from predictor.model.signature import read_signature
from predictor.prediction import encode
from tests.models import odd, recursive, typed

Itself = TypeAliasType("Itself", "Itself | int")  # type: ignore[misc]


def plain(text: str) -> str:
    return text


def untyped(text):  # type: ignore[no-untyped-def]
    return text


def skips(text: str, *_: Any, run: Run | None = None, tokenizer=object(), _x: int = 1) -> None: ...  # type: ignore[no-untyped-def]  # noqa: B008


def both(text: str, run, temperature: float = 0.7) -> str:  # type: ignore[no-untyped-def]
    return text


class Called:
    """A doc."""

    def __call__(self, count: "int") -> "list[int]":
        return [count]


class Bound:
    @staticmethod
    def predict(text: str) -> str:
        return text


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def generator(text: str) -> Generator[int, None, dict[str, int]]:
    yield 1
    return {"a": 1}


class Lookup(dict[str, str]):
    """Python knows the signature neither of its constructor nor of `max`."""

    def predict(self, text: str) -> str:
        return self[text]


async def pieces(text: str) -> AsyncIterator[str]:
    yield text


def data(text: str) -> Iterator[bytes]:
    yield text.encode()


def later(text: str) -> Awaitable[list[int]]:
    return asyncio.sleep(0, [len(text)])


SHAPES: list[tuple[Any, Any, Any, str | None, bool]] = [
    (plain, str, str, None, False),
    (untyped, Any, Any, None, False),
    (skips, str, type(None), "run", False),
    (Called, int, list[int], None, False),
    (Called(), int, list[int], None, False),
    (Bound, str, str, None, False),
    (Bound(), str, str, None, False),
    (decorated(plain), str, str, None, False),
    (functools.partial(both, temperature=0.1), str, str, "run", False),
    (str.upper, Any, Any, None, False),
    (len, Any, Any, None, False),
    (max, Any, Any, None, False),
    (Lookup, str, str, None, False),
    (generator, str, dict[str, int], None, True),
    (pieces, str, str, None, True),
    (data, str, bytes, None, True),
    (later, str, list[int], None, False),
    (typed.numbers, int, list[int], None, True),
]


@pytest.mark.parametrize(("target", "takes", "gives", "run", "streams"), SHAPES)
def test_shapes(target: Any, takes: Any, gives: Any, run: str | None, streams: bool) -> None:
    signature = read_signature(target)
    found = (signature.takes.type, signature.gives.type, signature.run, signature.streams)
    assert found == (takes, gives, run, streams)


async def test_several_inputs_and_the_shorthand() -> None:
    model = Model(typed.several)
    for _ in range(2):
        assert await model.run(encode("a"), 5) == b'["a 0.7"]'
    assert await model.run(encode({"text": "a", "temperature": 2}), 5) == b'["a 2.0"]'
    for value, sentence in [
        ({}, "Field 'input.text' is missing."),
        ({"text": "a", "temprature": 1}, "'input.temprature' is not known; there are: text, "),
        ({"text": "a", "temperature": 3}, "'input.temperature' must be less than or equal to 2."),
        (5, "Field 'input.text' must be a string."),
    ]:
        with pytest.raises(InvalidInput) as caught:
            await model.run(encode(value), 5)
        assert sentence in str(caught.value)


async def test_a_generator_s_return_value_is_the_result() -> None:
    assert await Model(generator).run(encode("x"), 5) == b'{"a":1}'
    assert await Model(data).run(encode("x"), 5) == b'"eA=="'


async def test_a_stream_without_pieces_has_an_empty_result() -> None:
    def nothing(text: str) -> Iterator[bytes]:
        yield from ()

    assert await Model(nothing).run(encode("x"), 5) == b'""'
    assert await Model(typed.words).run(encode(""), 5) == b'""'
    assert await Model(typed.numbers).run(encode(0), 5) == b"[]"


@pytest.mark.parametrize(
    ("model", "result"),
    [
        (odd.letters, "ax"),
        (odd.choices, ["a", "b"]),
        (odd.optional, ["x"]),
        (odd.decorated, "x!"),
    ],
)
async def test_pieces_are_joined_if_they_are_declared_as_text(model: Any, result: Any) -> None:
    text = "" if model is odd.choices else "x"
    assert json.loads(await Model(model).run(encode(text), 5)) == result


async def test_an_async_generator_that_awaits_nothing_can_be_canceled() -> None:
    run = asyncio.create_task(Model(typed.numbers).run(encode(10**9), 60))
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 1)


async def test_a_class_is_constructed_once_and_threads_are_reused() -> None:
    model = Model(typed.Counter)
    assert not model.is_ready
    await model.start()
    assert model.is_ready
    for count in (1, 2, 3):
        assert await model.run(encode(1), 5) == b'{"count":%d}' % count


class Forward:
    def forward(self, text):  # type: ignore[no-untyped-def]
        return text


def no_input() -> None: ...
def of_a_path(files: list[Path]) -> None: ...
def of_iterable(numbers: Iterable[int]) -> None: ...
def of_something(text: str, thing: object, other: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def of_a_thread(thread: Called, text: str) -> None: ...
def two(text: str, context) -> None: ...  # type: ignore[no-untyped-def]
def of_itself(it: Itself) -> None: ...
def of_itself_or_a_number(it: recursive.Endless | int) -> None: ...
def private(text: str, _secret: str) -> None: ...
def two_runs(text: str, run: Run, other: Run) -> None: ...


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (no_input, "takes no input: it needs a parameter"),
        (Forward, "has no method predict"),
        (Forward.forward, "is a method: name its class instead"),
        (of_a_path, "parameter 'files': a path would let clients name files of the server"),
        (of_iterable, "parameter 'numbers' is an iterator; take a list"),
        (of_something, "the type of parameter 'other' cannot be found: name 'Missing'"),
        (of_a_thread, "parameter 'thread': Called has no JSON; take bytes"),
        (of_itself, "parameter 'it': Itself has no JSON; take bytes"),
        (of_itself_or_a_number, r"parameter 'it': .*Endless \| int has no JSON; take bytes"),
        (two, "parameter 'context' of several inputs has no annotation; .* context: Run"),
        (two_runs, "parameters 'run' and 'other' are both for the run"),
        (private, "parameter '_secret' needs a default"),
    ],
)
def test_what_cannot_be_a_model_is_refused(target: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Model(target)
