"""The input that a model takes and the result that it gives: their types, checked as JSON."""

import contextlib
import itertools
import re
import types
from collections.abc import Iterator
from dataclasses import make_dataclass
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticSerializationError, from_json

from predictor.errors import InvalidInput, ModelFailed
from predictor.model.core_schema import TAG, FailingFast, Missing, has_serializer
from predictor.model.encoding import encode_json
from predictor.model.run import Run
from predictor.prediction import Json

_CONFIG = ConfigDict(
    allow_inf_nan=False, val_json_bytes="base64", ser_json_bytes="base64", cache_strings="none"
)
_STRICT = _CONFIG | ConfigDict(extra="forbid")
#: Bytes of a value above which checking it ends at the first error, and only pydantic says where.
_LARGE = 16 * 1024
_MANY_NAMES = 20_000  # in a value, above which unknown ones are ignored
_MOST_ERRORS = 5  # that are reported of one value
#: What a JSON value begins with, and one of its kind that costs nothing.
_KINDS = dict.fromkeys(b"-0123456789", "number") | {
    ord('"'): "string", ord("["): "array", ord("{"): "object",
}  # fmt: skip
_EMPTY = {"number": b"0", "string": b'""', "array": b"[]", "object": b"{}"}
#: How pydantic names a variant of a union whose members FailingFast counts.
_COUNTED = re.compile(r"function-after\[_count_alike\(\), (\w+)\]")
_FAULTS = {
    "missing": "is missing",
    "late": "takes too long to check: its type has unions that need a discriminator",
    "string_type": "must be a string",
    "bytes_type": "must be a string in base64",
}


class Parameter(NamedTuple):
    """A parameter of a model that is an input."""

    name: str
    type: Any
    default: Any = ...  # required


class Checked:
    """Checks JSON values against a type, strictly. Raises what pydantic does for the type."""

    def __init__(self, type_: Any, name: str, config: ConfigDict) -> None:
        self._name, self._head = name, b'{"%b":' % name.encode()
        # A field of that name: so errors have it, and the config reaches the type.
        namespace = {"__pydantic_config__": config}
        self._whole = make_dataclass("Value", [(name, type_)], namespace=namespace)
        self._adapter: TypeAdapter[Any] = TypeAdapter(self._whole)
        # A million invalid items would take a second, and a gigabyte for their errors.
        self._failing_fast = FailingFast(self._adapter.core_schema)
        # So would a million unknown names, which have no such option: they are ignored.
        self._ignoring = FailingFast(self._adapter.core_schema, "ignore")
        try:
            self._schema = self._adapter.json_schema()
        except PydanticInvalidForJsonSchema as error:
            raise PydanticSchemaGenerationError(str(error)) from None
        try:
            self.kinds = self._kinds(self._schema["properties"][name])
        except RecursionError:  # it refers to itself
            self.kinds = set(_EMPTY)

    def read(self, value: Json) -> Any:
        """The value in Python's types. Raises ValidationError."""
        text = b"%b%b}" % (self._head, self.shortened(value))
        if len(text) > _LARGE or self._failing_fast.is_bounded:
            fast = self._failing_fast if text.count(b":") <= _MANY_NAMES else self._ignoring
            read = fast.validate_json(text)
        else:
            read = self._adapter.validator.validate_json(text, strict=True)
        return getattr(read, self._name)

    def is_symmetric(self) -> bool:
        """Whether what is written of a value can be read: not with computed fields or aliases."""
        if has_serializer(self._adapter.core_schema):  # which may not say what it writes
            return False
        return self._adapter.json_schema(mode="serialization") == self._schema

    def dump(self, value: Any) -> None:
        """Raise PydanticSerializationError if a value in Python's types is not of the type."""
        self._adapter.dump_json(self._whole(value), warnings="error")

    def shortened(self, value: Json) -> Json:
        """The value; if it is of a wrong kind, an empty one: the error has a copy of it."""
        kind = _KINDS.get(value[0], "")
        return Json(_EMPTY[kind]) if kind and kind not in self.kinds else value

    def _kinds(self, schema: dict[str, Any]) -> set[str]:
        """The kinds of JSON values that a type may have."""
        if name := schema.get("$ref", "").rpartition("/")[2]:
            return self._kinds(self._schema["$defs"][name])
        if any_of := schema.get("anyOf") or schema.get("oneOf"):
            return set().union(*map(self._kinds, any_of))
        kind = schema.get("type", "")
        return {"number" if kind == "integer" else kind} if kind else set(_EMPTY)


def _is_bytes(type_: Any) -> bool:
    """Whether the values of a type are bytes; they may be None, too."""
    if get_origin(type_) is Annotated:
        return _is_bytes(get_args(type_)[0])
    kinds = [each for each in get_args(type_) if each is not type(None)]
    is_union = get_origin(type_) in (Union, types.UnionType)
    return type_ is bytes or (is_union and all(map(_is_bytes, kinds)))


class Takes:
    """The inputs of a model: one, whose value is the input, or several, as an object.

    `type` describes the input. Where only the first of several must be given, its value will do.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        first, *others = parameters
        self._names, self._shorthand = [parameter.name for parameter in parameters], b""
        fields: list[tuple[str, Any, Any]] = [
            (name, type_, default if isinstance(default, FieldInfo) else Field(default))
            for name, type_, default in parameters
        ]
        self.type = first.type
        if isinstance(first.default, FieldInfo):
            self.type = Annotated[first.type, first.default]
        if others:
            namespace = {"__pydantic_config__": _STRICT, "__doc__": "The inputs of the model."}
            # Not a BaseModel: a parameter may be called like one of its methods.
            self.type = make_dataclass("Input", fields, kw_only=True, namespace=namespace)
        self._checked = Checked(self.type, "input", _STRICT)
        self.is_bytes = not others and _is_bytes(first.type)
        required = [name for name, _, field in fields if field.is_required()]
        self._first = Checked(first.type, "input", _STRICT)
        if others and required == [first.name] and "object" not in self._first.kinds:
            self._shorthand, self.type = first.name.encode(), self.type | first.type

    def read(self, value: Json) -> dict[str, Any]:
        """The arguments, by their parameters' names. Raises InvalidInput, and ModelFailed."""
        if self._shorthand and value[:1] != b"{":
            value = Json(b'{"%b":%b}' % (self._shorthand, self._first.shortened(value)))
        try:
            read = self._checked.read(value)
        except ValidationError as error:
            raise InvalidInput(_sentences(error, {"input": value}, self._names)) from None
        except InvalidInput as error:  # of a validator of the model's, perhaps a class of its own
            raise InvalidInput(str(error)) from None
        except (Exception, SystemExit) as error:
            raise ModelFailed from error
        return {self._names[0]: read} if len(self._names) == 1 else vars(read)


class Gives:
    """The result of a model. `type` describes it."""

    def __init__(self, type_: Any) -> None:
        self.type, self.is_bytes = type_, _is_bytes(type_)
        self._checked = None if type_ is Any else Checked(type_, "result", _CONFIG)
        self._is_dumped = self._checked and not self._checked.is_symmetric()

    def write(self, value: Any, run: Run) -> Json:
        """The result as JSON. Raises ModelFailed if it is not JSON, or not what was promised."""
        written = encode_json(value, run.max_result, lambda: run.canceled)
        if self._checked and self._is_dumped:
            try:
                self._checked.dump(value)
            except PydanticSerializationError as error:
                raise ModelFailed("The model's result does not match its type.") from error
        is_checked = self.type is str and type(value) is str
        return written if is_checked else self.check(written)

    def check(self, written: Json) -> Json:
        """The result, if it has the type. Raises ModelFailed."""
        if self._checked and not self._is_dumped:
            try:
                self._checked.read(written)
            except ValidationError as error:
                flaws = _sentences(error, {"result": written}, [])
                message = f"The model's result does not match its type: {flaws}"
                raise ModelFailed(message) from None
        return written


def _sentences(error: ValidationError, checked: dict[str, Json], names: list[str]) -> str:
    """What is wrong, and where; never the values."""
    values: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        values = {k: from_json(text) for k, text in checked.items() if len(text) <= _LARGE}
    problems: dict[Any, ErrorDetails] = {}
    for problem in error.errors(include_url=False, include_context=False):
        if isinstance(missing := problem["input"], Missing):
            problem["type"], problem["loc"] = "missing", missing.place(problem["loc"])
        # None is known of a value that is nested too deeply.
        problem["loc"] = problem["loc"] or tuple(checked)
        problems.setdefault((problem["loc"], problem["type"]), problem)
    known = f"; there are: {', '.join(names)}" if len(names) > 1 else ""
    first = list(itertools.islice(problems.values(), 10 * _MOST_ERRORS))
    # Those of two choices of a union may be the same.
    distinct = list(dict.fromkeys(_sentence(problem, values, known) for problem in first))
    sentences = distinct[:_MOST_ERRORS]
    if more := len(problems) - len(first) + len(distinct) - len(sentences):
        sentences.append(f"There are {more} more errors." if more > 1 else "There is 1 more error.")
    return " ".join(sentences)


def _steps(problem: ErrorDetails, value: Any) -> Iterator[int | str]:
    """The way to a problem in a value, without what pydantic calls the variants of a union."""
    way = problem["loc"]
    for number, step in enumerate(way, 1):
        try:
            value = value[step]
        except (LookupError, TypeError):
            if number < len(way) or problem["type"] != "missing":
                continue
        yield step


def _sentence(problem: ErrorDetails, values: dict[str, Any], known: str) -> str:
    way = _steps(problem, values) if values else problem["loc"]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)
    place = _COUNTED.sub(r"\1", "".join(steps)).replace(f".{TAG}", "").removeprefix(".")
    field, kind = f"Field '{place[:100]}'", problem["type"]
    if kind in _FAULTS:
        return f"{field} {_FAULTS[kind]}."
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"{field} is not known{known if len(problem['loc']) == 2 else ''}."
    reason = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if reason.startswith("Input should "):
        return f"{field} must {reason.removeprefix('Input should ')}."
    return f"{field}: {reason.rstrip('.')}."
