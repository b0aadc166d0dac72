import json
import pickle
from typing import Any

import pytest
from arq.jobs import deserialize_job, deserialize_result
from pydantic_core import to_json

from predictor import errors
from predictor.prediction import Job, Json, Output, Prediction, PredictionId, State, encode
from predictor.store.wire import (
    MODEL,
    Model,
    decode,
    decode_ended,
    decode_job,
    encode_ended,
    encode_job,
)


def _job(**changes: Any) -> bytes:
    job: dict[str, Any] = {"t": None, "f": "predict", "a": ["x"], "k": {}, "et": 1_700_000_000_000}
    return json.dumps(job | changes).encode()


def _ended(outcome: Output | errors.PredictionError) -> bytes:
    return encode_ended("id", outcome, 1, (1, 2, 3))


def _result(json_value: bytes, text: str = "in") -> bytes:
    return _ended(Output(encode(text), Json(json_value)))


def _decode(data: bytes) -> Prediction:
    return decode_ended(PredictionId("id"), data)


def test_arq_reads_the_jobs_that_we_write() -> None:
    job = deserialize_job(encode_job(Job(encode("ü")), 1_700_000_000_000), deserializer=json.loads)
    assert (job.function, list(job.args), job.kwargs) == ("predict", ["ü"], {})


def test_a_job_is_read_as_it_was_written() -> None:
    named = Job(encode(""), 1.5, model="a.b:c", model_version='ü ,"a":}),"et"')
    for job in (Job(encode("ü")), Job(encode(""), 1.5), named):
        assert decode_job(encode_job(job, 1)) == job


def test_what_a_later_version_adds_to_a_job_is_ignored() -> None:
    """Or a worker that is not yet upgraded would fail what a new api has accepted."""
    assert decode_job(_job(more=1, k={"new": 1, "cancel_after": 2.5})) == decode_job(
        _job(k={"cancel_after": 2.5})
    )


HOSTILE_JOBS = [
    None,
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\x80",
    b"{" * 10_000,
    pickle.dumps({"f": "predict"}),
    _job(t="1"),
    _job(t=-1),
    _job(f=None),
    _job(f="x" * 1000),
    _job(f="other"),
    _job(a="x"),
    _job(a=[]),
    _job(a=["x"]).replace(b'"x"', b"1e999"),
    _job(a=["x", "y"]),
    _job(k=None),
    _job(k={"model": 1}),
    _job(k={"model": "x" * 1001}),
    _job(k={"model_version": None}),
    _job(et="now"),
    _job(et=10**30),
    _job(et=-1),
    _job(et=1.5),
    _job().replace(b'"x"', b'"\\ud800"'),
]


@pytest.mark.parametrize("data", HOSTILE_JOBS)
def test_what_is_not_a_job_of_ours_is_not_believed(data: bytes | None) -> None:
    with pytest.raises(errors.Unreadable):
        decode_job(data)


@pytest.mark.parametrize("json_value", [b'"1"', b"null", b"[1,2]", b'{"a":{"b":1.5}}'])
def test_a_result_is_read_as_it_was_written(json_value: bytes) -> None:
    data = _result(json_value)
    assert _decode(data).output == Output(encode("in"), Json(json_value))
    assert deserialize_result(data, deserializer=json.loads).result == json.loads(json_value)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInput("No digits, please."),
        errors.ModelFailed(),
        errors.TimedOut("The prediction ran out of time (1 s)."),
        errors.GivenUp(),
    ],
)
def test_a_failure_is_read_as_it_was_written(error: errors.PredictionError) -> None:
    read = _decode(_ended(error)).error
    assert type(read) is type(error)
    assert str(read) == str(error)


NAMED: Model = {"model": "a.b:c", "model_version": '}),"et" ,"a":[1],"r":'}


@pytest.mark.parametrize("outcome", [Output(encode("in"), Json(b"1")), errors.ModelFailed()])
def test_a_result_names_the_model_that_ran(outcome: Output | errors.PredictionError) -> None:
    data = encode_ended("id", outcome, 1, (1, 2, 3), NAMED)
    is_head = isinstance(outcome, Output)  # a failure is read as a whole
    for read in (_decode(data), decode_ended(PredictionId("id"), data, is_head=is_head)):
        assert (read.model, read.model_version) == (NAMED["model"], NAMED["model_version"])
    assert deserialize_result(data, deserializer=json.loads).kwargs == NAMED
    assert _decode(data.replace(b'"model"', b'"other"')).model == "", "of a later version"


def test_a_result_of_an_earlier_version_names_no_model() -> None:
    read = _decode(_result(b"1"))
    assert (read.state, read.model, read.model_version) == (State.SUCCEEDED, "", "")


@pytest.mark.parametrize("terms", [b"", b"{", b"[]", b'{"model":1}', b'{"model":"\\ud800"}'])
def test_what_names_no_model_is_not_believed(terms: bytes) -> None:
    assert decode(MODEL, terms) is None
    assert decode(MODEL, to_json(NAMED | {"cancel_after": 1})) == NAMED


HOSTILE_RESULTS = [
    b"",
    b"null",
    b"{}",
    pickle.dumps(1),
    _result(b"1")[:-1],
    _result(b"1").replace(b'"a":["in"]', b'"a":[]'),
    _result(b"1").replace(b'"a":["in"]', b'"a":["in","out"]'),
    _result(b"1").replace(b'"s":true', b'"s":1'),
    _result(b"1").replace(b'"k":{}', b'"k":{"model":1}'),
    _result(b"NaN"),
    _result(b"1" * 5000),
    _ended(errors.GivenUp()).replace(b'"message"', b'"text"'),
    _ended(errors.GivenUp()).replace(b'"r":{', b'"r":[{').replace(b"}}", b"}]}"),
]


@pytest.mark.parametrize("data", HOSTILE_RESULTS)
def test_what_is_not_a_result_of_ours_is_unreadable(data: bytes) -> None:
    assert isinstance(_decode(data).error, errors.Unreadable)


def test_a_failure_of_a_later_version_is_still_a_failure() -> None:
    data = _ended(errors.GivenUp("Why.")).replace(b'"given_up"', b'"new_code"')
    error = _decode(data).error
    assert type(error) is errors.PredictionError
    assert error is not None
    assert str(error) == "Why."


@pytest.mark.parametrize("text", ["in", ',"a":[1],"r":', "x" * 100])
def test_the_first_bytes_of_a_result_tell_all_but_its_output(text: str) -> None:
    data = _result(b'{"x":1,"a":[],"r":2}', text)
    head = decode_ended(PredictionId("id"), data[:130], is_head=True)
    assert (head.state, head.output) == (State.SUCCEEDED, None)
    assert (head.created, head.started, head.finished, head.tries) == (0.001, 0.002, 0.003, 1)
