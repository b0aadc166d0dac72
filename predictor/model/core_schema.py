"""Core schemas of pydantic: what keeps a value from costing much, however hostile it is."""

import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from pydantic_core import PydanticCustomError, SchemaValidator, ValidationError

_ARRAYS = frozenset({"list", "tuple", "set", "frozenset", "deque"})
_OBJECTS = frozenset({"dict", "model-fields", "dataclass-args", "typed-dict"})
_SCALARS = {
    *("none", "bool", "int", "float", "str", "bytes", "literal", "decimal", "uuid", "url"),
    *("date", "datetime", "time", "timedelta"),
}
_COLLECTIONS = _ARRAYS | {"dict"}
#: Types that refuse every object of Python that JSON has not.
_REFUSING = _ARRAYS | _OBJECTS | _SCALARS
_FIELDS = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
#: Keys whose values are no schemas.
_NO_SCHEMAS = frozenset({"cls", "context", "default", "expected", "members", "metadata"})


#: Members that are hashed, but for text, whose hash nobody outside can know.
_HASHED = {"dict": "keys_schema", "set": "items_schema", "frozenset": "items_schema"}
_MOST_ALIKE = 100  # different members of one hash: each is compared with all others
#: Seconds of CPU that a check with ambiguous unions may take: of any value, for each byte, at most.
_SECONDS, _PER_BYTE, _AT_MOST = 0.1, 1e-5, 2.0
_until: ContextVar[float] = ContextVar("until", default=math.inf)  # by `time.thread_time`
TAG = "\0"  # of a union that is timed, in the places of errors


class _TooSlow(Exception):
    """A check takes too long. No ValueError, which would end the check of one choice only."""


class Missing:
    """The refused default of a required field: an error has a copy of its value, and so of this.

    Of a field without a default, each error would have a copy of all that lacks the field.
    """

    def __init__(self, field: str, alias: str | None) -> None:
        self._field, self._alias = field, alias or field

    def place(self, way: tuple[int | str, ...]) -> tuple[int | str, ...]:
        """Of the field, from the place of the error, which may name a variant of a union."""
        return (*way[: -1 - way[::-1].index(self._field)], self._alias)


class FailingFast:
    """Checks JSON as a core schema does, but collections up to their first invalid item.

    `is_bounded`: whether a type contains itself, in unions whose choices a value may all look like.
    Each level of a value is then checked once for each choice of the level above: within a time.

    `unknown_names`: what becomes of these; each would be an error, for which there is no such end.
    """

    def __init__(self, schema: Any, unknown_names: str = "") -> None:
        self._unknown_names = unknown_names
        self._definitions = {each["ref"]: each for each in schema.get("definitions", ())}
        self._first, self._alike = dict[int, Any](), dict[int, set[Any]]()
        is_ambiguous = any(map(self._is_ambiguous, _inner(schema, "union")))
        self.is_bounded = is_ambiguous and _is_recursive(self._definitions)
        self._validator = SchemaValidator(self._changed(schema), _use_prebuilt=False)

    def validate_json(self, text: bytes) -> Any:
        """The value in Python's types. Raises ValidationError."""
        seconds = min(_SECONDS + len(text) * _PER_BYTE, _AT_MOST)
        before = _until.set(time.thread_time() + seconds)
        try:
            read = self._validator.validate_json(text, strict=True)
            if self.is_bounded:
                _timed(read)  # a validator of the model's may have caught the first error
        except _TooSlow:
            late = PydanticCustomError("late", "takes too long to check")
            raise ValidationError.from_exception_data("", [{"type": late, "input": None}]) from None
        finally:
            _until.reset(before)
            self._first, self._alike = {}, {}
        return read

    def _changed(self, schema: Any, key: str = "", seen: bool = False) -> Any:
        """`key`: its name in a mapping. `seen`: by a validator of the model's, with its errors."""
        if not isinstance(schema, dict):
            is_many = isinstance(schema, list | tuple)
            parts = (self._changed(each, "", seen) for each in schema) if is_many else ()
            return type(schema)(parts) if is_many else schema
        kind, changed = schema.get("type"), dict(schema)
        seen = seen or kind == "function-wrap"
        for name in _parts(schema):
            changed[name] = self._changed(schema[name], name, seen)
        for behavior in {"extra_behavior", "extra_fields_behavior"} & schema.keys():
            if isinstance(schema[behavior], str):  # no field of that name
                changed[behavior] = self._unknown_names or schema[behavior]
        if not isinstance(kind, str):
            return changed
        if kind in _COLLECTIONS:
            changed["fail_fast"] = True
        if kind == "union" and self.is_bounded and self._is_ambiguous(schema):
            # A validator before it would get Python's objects, and give it these.
            timed = {"type": "tagged-union", "discriminator": _timed, "choices": {TAG: changed}}
            return timed | {"ref": schema.get("ref")}
        if (members := _HASHED.get(kind)) and schema.get(members, {}).get("type") != "str":
            function = {"type": "no-info", "function": self._count_alike}
            inner = changed.get(members, {"type": "any"})
            changed[members] = {"type": "function-after", "function": function, "schema": inner}
        alias, is_typed_dict = schema.get("validation_alias"), kind == "typed-dict-field"
        is_required = schema.get("required", not is_typed_dict) and schema.get("init", True)
        is_named = not seen and (alias is None or isinstance(alias, str))
        if kind in _FIELDS and is_required and is_named and self._refuses(schema["schema"]):
            default = Missing(schema.get("name", key), alias)
            refused = {"type": "default", "default": default, "validate_default": True}
            changed["schema"] = refused | {"schema": changed["schema"]}
            changed |= {"required": False} if is_typed_dict else {}
        return changed

    def _count_alike(self, member: Any) -> Any:
        try:
            number = hash(member)
        except TypeError:  # pydantic says that it cannot be hashed
            return member
        if self._first.setdefault(number, member) != member:
            alike = self._alike.setdefault(number, set())
            alike.add(member)
            if len(alike) > _MOST_ALIKE:
                raise ValueError("has too many members with one hash")
        return member

    def _is_ambiguous(self, union: Any) -> bool:
        shapes = "".join(map(self._shapes, union.get("choices", ())))
        return len(shapes) > len(set(shapes))

    def _shapes(self, choice: Any) -> str:
        """The brackets with which a value can begin that a choice of a union takes."""
        choice = choice[0] if isinstance(choice, tuple) else choice
        kind, inner = choice["type"], choice.get("schema")
        inner = inner or self._definitions.get(choice.get("schema_ref"))
        if inner and kind not in {"function-before", "function-wrap"}:  # which may change it
            return self._shapes(inner)
        known = {"[": _ARRAYS, "{": _OBJECTS, "": _SCALARS}
        return next((shape for shape, kinds in known.items() if kind in kinds), "[{")

    def _refuses(self, schema: Any) -> bool:
        """Whether no object of Python is valid that JSON has not, and no validator sees it."""
        if schema.get("config", {}).get("from_attributes"):
            return False
        match schema["type"]:
            case "nullable" | "model" | "dataclass":
                return self._refuses(schema["schema"])
            case "union":
                choices = (
                    each[0] if isinstance(each, tuple) else each for each in schema["choices"]
                )
                return all(map(self._refuses, choices))
            case "definition-ref":
                return self._refuses(self._definitions.get(schema["schema_ref"], {"type": "any"}))
        return schema["type"] in _REFUSING


def _timed(_: Any) -> str:
    """The tag of a union. Raises _TooSlow when the time of the check is over."""
    if time.thread_time() > _until.get():
        raise _TooSlow
    return TAG


def _is_recursive(definitions: dict[str, Any]) -> bool:
    """Whether one of them contains itself."""
    parts = {name: _inner(each, "definition-ref") for name, each in definitions.items()}
    names = {name: {part["schema_ref"] for part in found} for name, found in parts.items()}
    for _ in definitions:  # take away those that contain none of the others
        names = {name: others for name, others in names.items() if others & names.keys()}
    return bool(names)


def _inner(schema: Any, kind: str) -> Iterator[dict[str, Any]]:
    """All parts of a core schema that are of a type."""
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from _inner(each, kind)
    elif isinstance(schema, dict):
        if schema.get("type") == kind:
            yield schema
        for key in _parts(schema):
            yield from _inner(schema[key], kind)


def _parts(schema: dict[str, Any]) -> set[str]:
    """The keys of what may be schemas: all, in a mapping from the names of fields or choices."""
    is_mapping = not isinstance(schema.get("type"), str)
    return schema.keys() - (() if is_mapping else _NO_SCHEMAS)


def has_serializer(schema: Any) -> bool:
    """Whether a class in a core schema writes its fields, or itself, by a method of its own."""
    kinds = [each.get("cls") for kind in ("model", "dataclass") for each in _inner(schema, kind)]
    decorators = [getattr(kind, "__pydantic_decorators__", None) for kind in kinds]
    return any(each and (each.field_serializers or each.model_serializers) for each in decorators)
