"""The signature of a model: its inputs, its result and how it is called, from its annotations."""

import functools
import inspect
import logging
import types
import typing
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import PydanticUserError

from predictor.errors import ConfigError
from predictor.model.run import Run
from predictor.model.values import Gives, Parameter, Takes

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
_ITERATORS = (abc.Iterable, abc.Iterator, abc.Generator, abc.AsyncIterator, abc.AsyncGenerator)
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_EMPTY = inspect.Parameter.empty
#: What pydantic raises for a type that it cannot describe, or annotations for a name not found.
_UNUSABLE = (PydanticUserError, NameError, TypeError, AttributeError, SyntaxError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Marks a model that takes a list of inputs and returns a list of results, and is as it was."""

    max_size: int = 32  # inputs of one call at most
    max_wait: float = 0.005  # seconds that one waits for others at most

    def __post_init__(self) -> None:
        if self.max_size < 1 or not 0 <= self.max_wait <= 60:
            raise ValueError("max_size must be at least 1, and max_wait from 0 to 60 seconds")

    def __call__(self, function: F) -> F:
        marked = getattr(function, "__func__", function)  # of a static method, or a bound one
        marked.__dict__["__batching__"] = self
        return function


batched = Batching


@dataclass(frozen=True)
class Signature:
    takes: Takes
    gives: Gives
    run: str | None  # name of the parameter for the run
    streams: bool  # the result comes in pieces
    is_async: bool
    batching: Batching | None  # it takes and returns lists, of what takes and gives describe
    description: str
    positional: tuple[str, ...]  # the parameters that cannot be given by their names


def read_signature(target: Any) -> Signature:
    """The signature of a function, a class or its instance. Raises ConfigError."""
    if inspect.isclass(target):
        try:
            inspect.signature(target).bind()
        except TypeError as error:
            raise ConfigError(f"its constructor needs arguments: {error}") from None
        except ValueError:  # some built-ins have none
            pass
        if not any({"predict", "__call__"} & vars(kind).keys() for kind in target.__mro__):
            raise ConfigError("has no method predict")
    called = function = callee(target)
    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called):  # but an instance
        called = type(called).__call__
    plain = inspect.unwrap(called)  # without decorators that name it
    parameters = _parameters(target, function)
    inputs, run = _inputs(parameters, plain, getattr(function, "keywords", {}))
    type_, streams = _result(plain)
    if batching := getattr(called, "__batching__", None):
        inputs, type_ = _of_one(inputs, run, type_, streams)
    return Signature(
        takes=_takes(inputs),
        gives=_gives(type_),
        run=run,
        streams=streams,
        is_async=inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(plain),
        batching=batching,
        description=inspect.getdoc(getattr(target, "func", target)) or "",
        positional=tuple(each.name for each in parameters if each.kind is each.POSITIONAL_ONLY),
    )


def callee(target: Any) -> Callable[..., Any]:
    """What is called: the method `predict` of a class or an instance, else the target itself."""
    if isinstance(target, functools.partial) or inspect.isroutine(target):
        return target
    default = target.__call__ if inspect.isclass(target) else target
    return getattr(target, "predict", default)


def _parameters(target: Any, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except ValueError:  # some built-ins have none
        return [inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)]
    if inspect.isclass(target):
        static = inspect.getattr_static(target, getattr(function, "__name__", ""), None)
        if not isinstance(static, staticmethod | classmethod):
            del parameters[:1]  # self
    return parameters


def _inputs(
    parameters: list[inspect.Parameter], plain: Any, bound: abc.Container[str]
) -> tuple[list[Parameter], str | None]:
    """The parameters that are inputs, and the one for the run. Raises ConfigError."""
    inputs, bare, run = list[Parameter](), list[str](), None
    for parameter in parameters:
        name, is_bare = parameter.name, parameter.annotation is _EMPTY
        is_required = parameter.default is _EMPTY
        type_ = Any if is_bare else _resolved(parameter.annotation, plain, f"parameter {name!r}")
        if type_ is Run or Run in typing.get_args(type_) or (is_bare and name == "run"):
            if run:
                raise ConfigError(f"parameters {run!r} and {name!r} are both for the run")
            run = name
        elif parameter.kind in _MANY or name in bound or (is_bare and not is_required):
            continue
        elif name.startswith("_"):
            if is_required:
                raise ConfigError(f"parameter {name!r} needs a default: it is no input")
        else:
            _check_input(type_, name)
            inputs.append(Parameter(name, type_, ... if is_required else parameter.default))
            bare += [name] * is_bare
    if not inputs:
        raise ConfigError("takes no input: it needs a parameter")
    if bare and len(inputs) > 1:
        if bare[0] == "self":
            raise ConfigError("is a method: name its class instead")
        fix = f"annotate it, or write {bare[-1]}: Run if it is for the run"
        raise ConfigError(f"parameter {bare[-1]!r} of several inputs has no annotation; {fix}")
    return inputs, run


def _resolved(annotation: Any, plain: Any, what: str) -> Any:
    """An annotation with the names in it looked up, alone: others may not be found."""
    holder = types.new_class("holder")
    holder.__annotations__ = {"it": annotation}
    try:
        names = getattr(plain, "__globals__", {})
        return typing.get_type_hints(holder, names, include_extras=True)["it"]
    except _UNUSABLE as error:
        raise ConfigError(f"the type of {what} cannot be found: {error}") from None


def _check_input(type_: Any, name: str) -> None:
    origin = typing.get_origin(type_) or type_
    if origin in _ITERATORS:
        raise ConfigError(f"parameter {name!r} is an iterator; take a list")
    if inspect.isclass(origin) and issubclass(origin, Path):
        reason = "a path would let clients name files of the server; take bytes"
        raise ConfigError(f"parameter {name!r}: {reason}")
    for each in typing.get_args(type_):
        _check_input(each, name)


def _of_one(
    inputs: list[Parameter], run: str | None, returned: Any, streams: bool
) -> tuple[list[Parameter], Any]:
    """What one prediction of a batch takes and gives. Raises ConfigError."""
    (name, type_, _), *others = inputs
    if run or others:
        raise ConfigError(f"@batched takes one list: remove {run or others[0].name!r}")
    if streams:
        raise ConfigError("@batched must return a list: it cannot be a generator")
    if type_ is not Any and type_ is not list and typing.get_origin(type_) is not list:
        kind = getattr(type_, "__name__", type_)
        raise ConfigError(f"@batched takes a list: annotate {name!r} as list[{kind}]")
    if returned not in (Any, list) and typing.get_origin(returned) is not list:
        logger.warning("the result's type %s is no list: it is not checked", returned)
    return [Parameter(name, _item(type_))], _item(returned)


def _item(type_: Any) -> Any:
    """The type of the items of a list, without the exceptions that are results of a batch."""
    item = typing.get_args(type_)[0] if typing.get_origin(type_) is list else Any
    is_union = typing.get_origin(item) in (typing.Union, types.UnionType)
    kinds = typing.get_args(item) if is_union else [item]
    kept = [each for each in kinds if not (inspect.isclass(each) and issubclass(each, Exception))]
    return typing.Union[tuple(kept or [Any])]  # noqa: UP007 (of a tuple)


def _takes(inputs: list[Parameter]) -> Takes:
    for each in inputs:
        try:
            Takes([each])
        except _UNUSABLE:
            kind = getattr(each.type, "__name__", each.type)
            fix = "take bytes, a list, or a type that pydantic can read"
            raise ConfigError(f"parameter {each.name!r}: {kind} has no JSON; {fix}") from None
    return Takes(inputs)


def _gives(type_: Any) -> Gives:
    try:
        return Gives(type_)
    except _UNUSABLE:
        logger.warning("the result's type %s has no JSON: it is not checked", type_)
        return Gives(Any)


def _result(plain: Any) -> tuple[Any, bool]:
    """The type of the result, and whether it comes in pieces."""
    returned = getattr(plain, "__annotations__", {}).get("return", Any)
    try:
        returned = _resolved(returned, plain, "the result")
    except ConfigError as error:
        logger.warning("%s: it is not checked", error)
        returned = Any
    origin, arguments = typing.get_origin(returned) or returned, typing.get_args(returned)
    if origin in (abc.Awaitable, abc.Coroutine):
        return (arguments or (Any,))[-1], False
    is_generator = inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)
    if not is_generator and origin not in _ITERATORS[1:]:
        return returned, False
    if origin is abc.Generator and arguments[2:] and arguments[2] not in (Any, type(None)):
        return arguments[2], True  # a generator may return the result
    piece: Any = (arguments or (Any,))[0]
    return piece if piece in (str, bytes, Any) else list[piece], True
