import pytest

from predictor.errors import UnknownPrediction
from predictor.prediction import Json, Output, encode, new_id, parse_id


def test_new_ids_are_valid_and_unique() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(parse_id(id_) == id_ and len(id_) == 32 for id_ in ids)


@pytest.mark.parametrize("text", ["abc123", "A-b_9", "x", "x" * 64])
def test_valid_ids(text: str) -> None:
    assert parse_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a\n", "ä", "a/b", "a\0", "٣", "*", "a:b"])
def test_invalid_ids(text: str) -> None:
    with pytest.raises(UnknownPrediction):
        parse_id(text)


def test_output_to_json() -> None:
    output = Output(encode('say "ü"'), Json(b'"1234"'))
    assert output.to_json() == '{"input":"say \\"ü\\"","result":"1234"}'.encode()
    assert output.to_json(is_minimal=True) == b'{"result":"1234"}'
