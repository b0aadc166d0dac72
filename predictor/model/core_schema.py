"""Core schemas of pydantic: changed so that a large value costs little, however wrong it is."""

from typing import Any

_COLLECTIONS = frozenset({"list", "tuple", "set", "frozenset", "deque", "dict"})
#: Types that refuse every object of Python that JSON has not.
_REFUSING = _COLLECTIONS | {
    *("bool", "int", "float", "str", "bytes", "literal", "enum", "decimal", "uuid", "url"),
    *("date", "datetime", "time", "timedelta", "model-fields", "dataclass-args", "typed-dict"),
}
_FIELDS = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
#: Keys whose values are no schemas.
_NO_SCHEMAS = frozenset({"cls", "context", "default", "expected", "members", "metadata"})


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
    """Changes a core schema. Its collections are checked up to their first invalid item.

    `unknown_names`: what becomes of these; each would be an error, for which there is no such end.
    """

    def __init__(self, schema: Any, unknown_names: str = "") -> None:
        self._unknown_names = unknown_names
        self._definitions = {each["ref"]: each for each in schema.get("definitions", ())}
        self.schema = self._changed(schema)

    def _changed(self, schema: Any, key: str = "") -> Any:
        if isinstance(schema, list):
            return [self._changed(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        changed = {
            name: value if name in _NO_SCHEMAS else self._changed(value, name)
            for name, value in schema.items()
        }
        kind = schema.get("type")
        if kind in _COLLECTIONS:
            changed["fail_fast"] = True
        is_required = schema.get("required", True) and schema.get("init", True)
        if kind in _FIELDS and is_required and self._refuses(schema["schema"]):
            default = Missing(schema.get("name", key), schema.get("validation_alias"))
            refused = {"type": "default", "default": default, "validate_default": True}
            changed["schema"] = refused | {"schema": changed["schema"]}
            changed |= {"required": False} if kind == "typed-dict-field" else {}
        for behavior in {"extra_behavior", "extra_fields_behavior"} & schema.keys():
            changed[behavior] = self._unknown_names or schema[behavior]
        return changed

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


def has_serializer(schema: Any) -> bool:
    """Whether a class in a core schema writes its fields, or itself, by a method of its own."""
    if isinstance(schema, list | tuple):
        return any(map(has_serializer, schema))
    if not isinstance(schema, dict):
        return False
    decorators = getattr(schema.get("cls"), "__pydantic_decorators__", None)
    if decorators and (decorators.field_serializers or decorators.model_serializers):
        return True
    return any(has_serializer(value) for key, value in schema.items() if key not in _NO_SCHEMAS)
