"""Values of a model's types: what is accepted, and what hostile clients send."""

import json
import random
import time
from typing import Annotated, Any, Literal, Required

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Tag,
    computed_field,
    field_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass
from pydantic_core import from_json
from typing_extensions import TypedDict

from predictor.errors import InvalidInput, ModelFailed
from predictor.model.run import Run
from predictor.model.signature import read_signature
from predictor.model.values import Gives, Parameter, Takes
from predictor.prediction import Json
from tests.models import odd, recursive, results, typed
from tests.models.optional import Circle, Square

RUN = Run("a", 0)


Shape = Annotated[Circle | Square, Field(discriminator="kind")]

TYPES: dict[str, Takes] = {
    "text": Takes([Parameter("text", str)]),
    "number": Takes([Parameter("number", Annotated[float, Field(ge=0)])]),
    "choice": Takes([Parameter("choice", Literal["a", "b"])]),
    "bytes": Takes([Parameter("content", bytes)]),
    "list": Takes([Parameter("numbers", list[int])]),
    "nested": Takes([Parameter("rows", list[dict[str, list[float]]])]),
    "union": Takes([Parameter("rows", list[int | str | typed.Item])]),
    "model": read_signature(typed.price).takes,
    "several": read_signature(typed.several).takes,
    "numbered": Takes([Parameter("scores", dict[int, float])]),
    "distinct": Takes([Parameter("numbers", set[int])]),
    "many": Takes([Parameter(f"n{n}", int) for n in range(30)]),
}
HUGE = 75_000  # items of a value of a megabyte or less
ALIKE = range(2**61 - 1, (2**61 - 1) * 10_000, 2**61 - 1)  # Python has the same hash of all


def _hostile() -> list[bytes]:
    source = random.Random(1)
    names = ["input", "text", "items", "name", "count", "x", "__class__", "a" * 1000]
    simple = [
        b"null",
        b"true",
        b"-1",
        b"1e308",
        b"0.1",
        b'""',
        b'"\\u0000"',
        b"[]",
        b"{}",
        b'"==="',
    ]
    made = [
        *(b'"%b"' % (b"x" * HUGE), b"[%b]" % b",".join([b'"x"'] * HUGE), b"9" * 4000),
        b"{%b}" % b",".join(b'"k%d":"x"' % n for n in range(HUGE)),
        b'{"items":[%b]}' % b",".join([b'{"count":"x"}'] * (HUGE // 2)),
        b'{"items":[%b]}' % b",".join([b"{}"] * HUGE),
        b"[%b]" % b",".join([b'{"a":[1,"x"]}'] * (HUGE // 2)),
        b'{"x":[%b]}' % b",".join([b"[]"] * (HUGE // 3)),
        b"{%b}" % b",".join(b'"%d":1' % n for n in ALIKE),
        b"[%b]" % b",".join(b"%d" % n for n in ALIKE),
        *(b"[" * depth + b"]" * depth for depth in (100, 200, 201, 300)),
        b'{"text":' * 100 + b"1" + b"}" * 100,
    ]
    while len(made) < 200:
        value: Any = json.loads(source.choice(simple))
        for _ in range(source.randrange(5)):
            value = source.choice([[value] * 3, {source.choice(names): value, "more": value}])
        made.append(json.dumps(value).encode())
    return made


@pytest.mark.parametrize("name", TYPES)
def test_hostile_values_cost_little_and_are_refused_in_a_sentence(name: str) -> None:
    for value in _HOSTILE:
        took, tries = 1.0, 0
        while took > 0.2 and tries < 4:  # other tests run meanwhile: the fastest counts
            began, sentence = time.thread_time(), "Field 'input"
            try:
                TYPES[name].read(Json(value))
            except InvalidInput as error:
                sentence = str(error)
            took, tries = time.thread_time() - began, tries + 1
            assert sentence.startswith("Field 'input")
            assert len(sentence) < 1000
        assert took <= 0.2, value[:40]


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        (
            int | str | list[float],
            '[1, "x"]',
            (
                "Field 'input' must be a valid integer. Field 'input' must be a string. "
                "Field 'input[1]' must be a valid number."
            ),
        ),
        (list[typed.Item | None], '[{"count": 2}]', "Field 'input[0].name' is missing."),
        (dict[str, int | None], '{"a": {"b": 1}}', "Field 'input.a' must be a valid integer."),
        (Shape, '{"kind": "circle"}', "Field 'input.radius' is missing."),
        (
            Shape,
            '{"kind": "circle", "radius": "x"}',
            "Field 'input.radius' must be a valid number.",
        ),
    ],
)
def test_the_place_in_a_union_is_one_of_the_input(type_: Any, value: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Takes([Parameter("input", type_)]).read(Json(value.encode()))
    assert str(caught.value) == says


class Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    wide_name: int
    either: int | str
    or_none: float | None


class Lenient(BaseModel):
    """Neither of them may be asked about what is not there."""

    model_config = ConfigDict(from_attributes=True)

    count: int = 0


class Looked(BaseModel):
    count: int = 0

    @model_validator(mode="before")
    @classmethod
    def _look(cls, value: dict[str, Any]) -> Any:
        return value | {"count": value.get("count", 1)}


class Mapped(TypedDict, total=False):
    part: Required[Part]
    more: int


class Whole(BaseModel):
    text: str
    parts: list[Part]
    one: Part
    mapped: Mapped
    lenient: Lenient
    looked: Looked
    anything: Any


@pytest.mark.parametrize("size", [1, 20_000])
def test_what_is_missing_is_named_in_a_large_value_too(size: int) -> None:
    takes, text, part = Takes([Parameter("whole", Whole)]), "x" * size, {"wideName": 1, "either": 2}
    problems = {"parts": [part, part | {"orNone": None}], "mapped": {"part": part}}
    with pytest.raises(InvalidInput) as caught:
        takes.read(Json(json.dumps({"text": text} | problems).encode()))
    missing = ["parts[0].orNone", "one", "mapped.part.orNone", "lenient", "looked"]
    sentences = [f"Field 'input.{name}' is missing." for name in missing]
    assert str(caught.value) == " ".join([*sentences, "There is 1 more error."])
    with pytest.raises(InvalidInput) as caught:
        takes.read(Json(json.dumps(problems | {"text": text, "one": {}, "mapped": {}}).encode()))
    missing = ["parts[0].orNone", "one.wideName", "one.either", "one.orNone", "mapped.part"]
    sentences = [f"Field 'input.{name}' is missing." for name in missing]
    assert str(caught.value).startswith(" ".join(sentences))


def test_what_is_wrong_for_each_choice_of_a_union_is_said_once() -> None:
    takes = Takes([Parameter("shape", Circle | Square)])
    with pytest.raises(InvalidInput) as caught:
        takes.read(Json(b'"x"'))
    assert str(caught.value) == "Field 'input' must be an object."
    with pytest.raises(InvalidInput) as caught:
        takes.read(Json(b'{"kind": "x", "radius": 1}'))
    kinds = "Field 'input.kind' must be 'circle'. Field 'input.kind' must be 'square'."
    assert str(caught.value) == f"{kinds} Field 'input.side' is missing."


def test_large_sets_and_unions_of_tags_are_read() -> None:
    grid = [[x, y, z] for x in range(-16, 17) for y in range(-16, 17) for z in range(-16, 17)]
    takes = Takes([Parameter("cells", set[tuple[int, int, int]])])  # -1 and -2 have the same hash
    assert len(takes.read(Json(json.dumps(grid).encode()))["cells"]) == 33**3
    with pytest.raises(InvalidInput, match="hashable"):
        Takes([Parameter("cells", set[Any])]).read(Json(json.dumps([*grid, [1]]).encode()))
    tagged = Annotated[Circle, Tag("c")] | Annotated[Square, Tag("s")]
    takes = Takes([Parameter("shape", tagged), Parameter("text", str)])
    value = {"shape": {"kind": "square", "side": 1}, "text": "x" * 20_000}
    assert takes.read(Json(json.dumps(value).encode()))["shape"] == Square(kind="square", side=1)
    with pytest.raises(InvalidInput, match=r"Field 'input\.shape' is missing"):
        takes.read(Json(json.dumps(value | {"shape": None}).replace('"shape": null,', "").encode()))


class Awkward(BaseModel):
    """With names that core schemas have, too."""

    type: Literal["awkward"]
    fields: list[int]
    cls: str
    default: int
    metadata: dict[str, int]
    expected: set[int]
    extra_behavior: int = 0
    choices: int = 0


class Other(BaseModel):
    type: Literal["type"]


class AwkwardDict(TypedDict):
    type: str
    default: list[int]


@pytest.mark.parametrize("size", [1, 20_000])
def test_fields_may_be_called_as_the_parts_of_a_core_schema(size: int) -> None:
    union = Annotated[Awkward | Other, Field(discriminator="type")]
    takes = Takes([Parameter("awkward", union), Parameter("more", AwkwardDict)])
    awkward = {
        "type": "awkward",
        "fields": [1],
        "cls": "x" * size,
        "metadata": {"a": 1},
        "expected": [1],
    }
    value = {"awkward": awkward | {"default": 1}, "more": {"type": "x", "default": []}}
    assert takes.read(Json(json.dumps(value).encode()))["awkward"].expected == {1}
    value = {"awkward": awkward, "more": {"type": "x", "default": ["x"]}}
    with pytest.raises(InvalidInput) as caught:
        takes.read(Json(json.dumps(value).encode()))
    assert "default' is missing. Field 'input.more.default[0]' must be" in str(caught.value)


def _nested(levels: int, before: str, after: str, innermost: str = "{}") -> Json:
    return Json((before * levels + innermost + after * levels).encode())


_OBJECT, _PARTS, _ARRAY = ('{"left":', "}"), ('{"parts":[', "]}"), ("[", "]")


@pytest.mark.parametrize(
    ("type_", "wrapped", "innermost"),
    [
        (recursive.Sum | recursive.Product, _OBJECT, "1"),
        (recursive.Dict | recursive.OtherDict, _OBJECT, "1"),
        (recursive.Leaf | recursive.Branch, _PARTS, "{}"),
        (recursive.Omitting | recursive.Leaf, _PARTS, "{}"),
        (recursive.Wrapping | list[recursive.Wrapping], _ARRAY, "[]"),
        (recursive.Pair | recursive.Other, _ARRAY, "1"),
        (recursive.Lists, _ARRAY, "0.5"),
    ],
)
def test_types_that_contain_themselves_are_checked_within_a_time(
    type_: Any, wrapped: tuple[str, str], innermost: str
) -> None:
    takes, gives = Takes([Parameter("tree", type_)]), Gives(type_)
    if innermost != "0.5":
        assert takes.read(_nested(5, *wrapped, innermost))
    for end in (innermost, '"x"'):
        hostile, began = _nested(60, *wrapped, end), time.thread_time()
        with pytest.raises(InvalidInput, match="'input' takes too long to check: its type has"):
            takes.read(hostile)
        with pytest.raises(ModelFailed, match="'result' takes too long to check"):
            gives.check(hostile)
        assert time.thread_time() - began < 2


def test_all_that_follows_an_error_is_checked_within_a_time() -> None:
    tree = Takes([Parameter("tree", recursive.Leaf | recursive.Branch)])
    lists, began = Takes([Parameter("lists", recursive.Lists)]), time.thread_time()
    for takes, value in (
        (tree, _nested(3, *_PARTS, '"x"')),
        (tree, Json(b'{"parts":[1,%b]}' % _nested(60, *_PARTS))),
        (lists, _nested(8, *_ARRAY, ",".join(['"x"'] * 400))),
    ):
        with pytest.raises(InvalidInput, match="must be"):
            takes.read(value)
    assert time.thread_time() - began < 1


def test_types_that_do_not_contain_themselves_take_the_time_they_need() -> None:
    def slow(text: str) -> str:
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        return text

    class Twice(BaseModel):
        first: Circle | Square
        second: Circle | Square
        text: Annotated[str, AfterValidator(slow)]

    circle = {"kind": "circle", "radius": 1}
    value = {"first": circle, "second": circle, "text": "x"}
    assert Takes([Parameter("twice", Twice)]).read(Json(json.dumps(value).encode()))["twice"].text


def test_wide_values_of_types_that_contain_themselves_are_valid() -> None:
    leaves = ",".join(['{"parts":[{"parts":[]},{}]}'] * 4_000)
    takes = Takes([Parameter("tree", recursive.Leaf | recursive.Branch)])
    wide = takes.read(Json(f'{{"parts":[{leaves}]}}'.encode()))
    assert len(wide["tree"].parts) == 4_000
    flat = Takes([Parameter("value", recursive.JsonLike)])
    assert flat.read(_nested(60, '{"a":[', "]}", "1,2"))
    assert len(flat.read(Json(b"[%b1]" % (b"[]," * 100_000)))["value"]) == 100_001


_HOSTILE = _hostile()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"scores": [0.1, 0.2, 0.3, float("nan")]}, r"result.scores\[3\] is NaN, which is no"),
        ([1.0, {"a": float("-inf")}], r"result\[1\].a is infinite, which is not JSON"),
        ({"a": "\ud800"}, r"result.a is text with half of a surrogate pair, which is not JSON"),
        ([10**5000], r"result\[0\] is too long a number, which is not JSON"),
        ({"a": [b"x"]}, r"result.a\[0\] is of type bytes, which is not JSON"),
        (results.Part(x=1), r"result\.half is NaN, which is not JSON"),
        ((each for each in [1.0, float("nan")]), "NaN and infinity are not JSON"),
        (results.Point(1, object()), "result.y is of type object, which is not JSON"),
        (typed.Order.model_construct(items=[typed.Item.model_construct(name=b"\xff")]),
         r"result.items\[0\].name is of type bytes"),
        (odd.score("nan"), "result.score is NaN, which is not JSON"),
        ([odd.score("inf")], r"result\[0\].score is infinite, which is not JSON"),
        (odd.score("more"), r"result.more\[0\].a is infinite, which is not JSON"),
        ([results.Scalar(float("nan"))], r"result\[0\] is NaN, which is not JSON"),
    ],
)  # fmt: skip
def test_what_is_not_json_in_a_result_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(ModelFailed, match=sentence):
        Gives(Any).write(value, RUN)


def test_a_validator_may_refuse_an_input() -> None:
    class Refused(InvalidInput):
        """Too short."""

    def check(text: str) -> str:
        raise Refused

    with pytest.raises(InvalidInput, match=r"^Too short\.$") as caught:
        Takes([Parameter("text", Annotated[str, AfterValidator(check)])]).read(Json(b'"x"'))
    assert type(caught.value) is InvalidInput


def test_a_result_has_the_type_that_was_promised() -> None:
    gives = Gives(typed.Price)
    assert gives.write({"total": 1, "currency": "EUR"}, RUN) == b'{"total":1,"currency":"EUR"}'
    with pytest.raises(ModelFailed, match=r"'result.currency' must be 'EUR' or 'USD'"):
        gives.write({"total": 1, "currency": "GBP"}, RUN)
    assert Gives(list[float]).write(results.Array(), RUN) == b"[1.0,2.0]"


@dataclass
class Loud:
    text: str

    @field_serializer("text")
    def loud(self, text: str) -> str:
        return text.upper()


class Named(BaseModel):
    a_name: str = Field(serialization_alias="aName")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.a_name)


def test_a_result_that_is_written_in_another_shape_than_it_is_read() -> None:
    assert Gives(odd.Year).write(odd.year("2026"), RUN) == b'{"at":"2026"}'
    assert Gives(list[odd.Whole]).write([odd.Whole(at=1)], RUN) == b"[1]"
    where = {"url": "https://example.com/", "address": "127.0.0.1"}
    assert from_json(Gives(odd.Where).write(where, RUN)) == where, "a dict will do"
    assert Gives(odd.Score).write(odd.score(""), RUN) == b'{"score":null,"more":null}'
    assert Gives(Any).write([Loud("x")], RUN) == b'[{"text":"X"}]'
    gives = Gives(Named)
    assert gives.write(Named(a_name="x"), RUN) == b'{"aName":"x","size":1}'
    for value in ({"a_name": 1}, Named.model_construct(a_name=[])):
        with pytest.raises(ModelFailed, match=r"does not match its type\.$"):
            gives.write(value, RUN)
