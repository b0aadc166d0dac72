"""Core schemas of pydantic: what keeps a value from costing much, however hostile it is."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic_core import SchemaValidator

_COLLECTIONS = frozenset({"list", "tuple", "set", "frozenset", "deque", "dict"})
#: Types that refuse every object of Python that JSON has not.
_REFUSING = _COLLECTIONS | {
    *("bool", "int", "float", "str", "bytes", "literal", "enum", "decimal", "uuid", "url"),
    *("date", "datetime", "time", "timedelta", "model-fields", "dataclass-args", "typed-dict"),
}
_OBJECTS = frozenset({"model", "dataclass", "typed-dict", "dict"})
_FIELDS = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
#: Keys whose values are no schemas.
_NO_SCHEMAS = frozenset({"cls", "context", "default", "expected", "members", "metadata"})


#: Members that are hashed, but for text, whose hash nobody outside can know.
_HASHED = {"dict": "keys_schema", "set": "items_schema", "frozenset": "items_schema"}
_MOST_ALIKE = 1000  # members that hash as another does: each is compared with all others
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_MOST_CHECKS = 100_000  # of the parts of a value whose type contains itself in a union


class Missing:
    """The refused default of a required field: an error has a copy of its value, and so of this.

    Of a field without a default, each error would have a copy of all that lacks the field.
    """

    def __init__(self, field: str, alias: Any) -> None:
        self._field, self._alias = field, alias if isinstance(alias, str) else field

    def place(self, way: tuple[int | str, ...]) -> tuple[int | str, ...]:
        """Of the field, from the place of the error, which may name a variant of a union."""
        return (*way[: -1 - way[::-1].index(self._field)], self._alias)


class FailingFast:
    """Checks JSON as a core schema does, but collections up to their first invalid item.

    `unknown_names`: what becomes of these; each would be an error, for which there is no such end.
    """

    def __init__(self, schema: Any, unknown_names: str = "") -> None:
        self._unknown_names = unknown_names
        self._definitions = {each["ref"]: each for each in schema.get("definitions", ())}
        self._first, self._alike = dict[int, Any](), 0
        self._validator = SchemaValidator(self._changed(schema), _use_prebuilt=False)

    def validate_json(self, text: bytes) -> Any:
        self._alike = 0
        try:
            return self._validator.validate_json(text, strict=True)
        finally:
            self._first = {}

    def _changed(self, schema: Any, key: str = "") -> Any:
        if isinstance(schema, list):
            return [self._changed(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        kind, changed = schema.get("type"), dict(schema)
        for name in _parts(schema):
            changed[name] = self._changed(schema[name], name)
        for behavior in {"extra_behavior", "extra_fields_behavior"} & schema.keys():
            if isinstance(schema[behavior], str):  # no field of that name
                changed[behavior] = self._unknown_names or schema[behavior]
        if not isinstance(kind, str):
            return changed
        if kind in _COLLECTIONS:
            changed["fail_fast"] = True
        if (members := _HASHED.get(kind)) and schema.get(members, {}).get("type") != "str":
            function = {"type": "no-info", "function": self._count_alike}
            inner = changed.get(members, {"type": "any"})
            changed[members] = {"type": "function-after", "function": function, "schema": inner}
        is_required = schema.get("required", True) and schema.get("init", True)
        if kind in _FIELDS and is_required and self._refuses(schema["schema"]):
            default = Missing(schema.get("name", key), schema.get("validation_alias"))
            refused = {"type": "default", "default": default, "validate_default": True}
            changed["schema"] = refused | {"schema": changed["schema"]}
            changed |= {"required": False} if kind == "typed-dict-field" else {}
        return changed

    def _count_alike(self, member: Any) -> Any:
        try:
            first = self._first.setdefault(hash(member), member)
        except TypeError:  # pydantic says that it cannot be hashed
            return member
        if first != member and member not in {-1, -2}:  # whose hashes are the same
            self._alike += 1
            if self._alike > _MOST_ALIKE:
                raise ValueError("has too many members with one hash")
        return member

    def _refuses(self, schema: Any) -> bool:
        """Whether no object of Python is valid that JSON has not, and no validator sees it."""
        if schema.get("config", {}).get("from_attributes"):
            return False
        match schema["type"]:
            case "nullable" | "model" | "dataclass":
                return self._refuses(schema["schema"])
            case "union":
                return all(map(self._refuses, schema["choices"]))
            case "definition-ref":
                return self._refuses(self._definitions.get(schema["schema_ref"], {"type": "any"}))
        return schema["type"] in _REFUSING


class Ambiguity:
    """How often parts of a value are checked whose type contains itself in a union.

    Without a discriminator, each level is checked as every choice that it may be.
    """

    def __init__(self, schema: Any) -> None:
        self._definitions = {each["ref"]: each for each in schema.get("definitions", ())}
        #: of objects and of lists: the most choices of one union that contain it, if several do
        self.choices = dict[bytes, int]()
        for ref, definition in self._definitions.items():
            for union in _inner(definition, "union"):
                kinds = [self._kind(each) for each in union["choices"] if ref in self._refs(each)]
                for kind, count in Counter(kinds).items():
                    if count > self.choices.get(kind, 1):
                        self.choices[kind] = count

    def is_too_deep(self, text: bytes) -> bool:
        """Whether a value would take too long to check."""
        for opening, choices in self.choices.items():
            checks, level = 0, 0
            brackets = rb"[{}]" if opening == b"{" else rb"[\[\]]"
            for bracket in re.findall(brackets, _STRING.sub(b"", text)):
                level += 1 if bracket == opening else -1
                checks += choices**level
                if checks > _MOST_CHECKS:
                    return True
        return False

    def _refs(self, schema: Any) -> set[str]:
        """What a schema contains, at any depth."""
        found, new = set[str](), {each["schema_ref"] for each in _inner(schema, "definition-ref")}
        while new:
            found |= new
            inside = [_inner(self._definitions.get(ref), "definition-ref") for ref in new]
            new = {each["schema_ref"] for some in inside for each in some} - found
        return found

    def _kind(self, schema: Any) -> bytes:
        """What a value begins with."""
        if schema["type"] == "definition-ref":
            return self._kind(self._definitions[schema["schema_ref"]])
        is_object = schema["type"] in _OBJECTS
        if is_object or schema["type"] in _COLLECTIONS or "schema" not in schema:
            return b"{" if is_object else b"["
        return self._kind(schema["schema"])


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
