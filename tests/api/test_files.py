"""Models that take and give bytes."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from predictor.api.headers import file_type
from predictor.config import Config
from predictor.errors import UnsupportedMediaType
from tests.contract import contract
from tests.processes import Api, Forked, Processes

MODEL = "tests.models.files:reverse"
#: Not UTF-8, and with both characters that the alphabets of base64 do not share.
FILE = b"\xfb\xef\xbe\xff\xff\xff\x00"
ENCODED, REVERSED = base64.b64encode(FILE).decode(), FILE[::-1]


@pytest.fixture(scope="module", params=["api", "queue"])
def files(
    valkey: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Api]:
    """An api and a worker whose model reverses bytes; where sync predictions run."""
    with Processes(tmp_path_factory.mktemp("files"), f"{valkey}?db=5", Forked) as started:
        api = started.api(model=MODEL, sync=request.param)
        api.client.event_hooks = {"response": [contract(MODEL).check]}
        started.worker(model=MODEL)
        yield api


def _post(api: Api, content: bytes = FILE, type_: str = "image/png", **headers: str) -> Any:
    """`headers` with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.client.post("/predict", content=content, headers={"Content-Type": type_} | named)


@pytest.mark.parametrize(
    "type_", ["application/octet-stream", "image/png", "AUDIO/wav; a=b", "application/pdf", "a/b"]
)
def test_a_body_may_be_the_bytes_themselves(files: Api, type_: str) -> None:
    assert ENCODED == "++++////AA=="
    expected = {"input": ENCODED, "result": base64.b64encode(REVERSED).decode()}
    answer = _post(files, type_=type_)
    assert (answer.status_code, answer.json()) == (200, expected)
    assert files.client.post("/predict", json={"input": ENCODED}).json() == expected
    assert answer.headers["vary"] == "Accept"


def test_an_empty_file_is_a_file(files: Api) -> None:
    assert _post(files, b"").json() == {"input": "", "result": ""}
    assert _post(files, b"", Accept="image/png").content == b""


def test_a_file_may_be_queued(files: Api) -> None:
    id_ = _post(files, Async_Mode="true").json()["prediction_id"]
    assert files.outcome(id_).json()["output"]["input"] == ENCODED
    answer = _post(files, Prefer="wait=20", Accept="image/png")
    assert (answer.content, answer.headers["content-type"]) == (REVERSED, "image/png")
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"].startswith("/predict/")
    answer = _post(files, Prefer="return=minimal", Accept="image/png;q=0.9, application/json")
    assert list(answer.json()) == ["result"]


def test_a_file_and_its_base64_are_one_request_to_an_idempotency_key(files: Api) -> None:
    first = _post(files, Idempotency_Key="file", Async_Mode="true")
    headers = {"Idempotency-Key": "file"}
    again = files.client.post("/predict", json={"input": ENCODED}, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert _post(files, b"other", Idempotency_Key="file").status_code == 422


@pytest.mark.parametrize(
    "type_", ["", "x", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_form_is_no_file(files: Api, type_: str) -> None:
    answer = _post(files, type_=type_)
    assert answer.status_code == 415
    assert "application/json; or the bytes themselves, as application/oct" in answer.json()["error"]


def test_pages_of_other_origins_run_nothing(files: Api) -> None:
    """Browsers ask before they send any other type (CORS)."""
    assert _post(files, type_="text/plain").status_code == 200
    for type_ in ("text/plain", "text/plain\xa0", "\xa0multipart/form-data"):
        refused = {b"Content-Type": type_.encode("latin-1"), b"Origin": b"http://other.example"}
        assert files.client.post("/predict", content=FILE, headers=refused).status_code == 415


def test_of_two_types_the_first_counts(files: Api) -> None:
    first, second = ("Content-Type", "multipart/form-data"), ("Content-Type", "image/png")
    for headers, status in ([first, second], 415), ([second, first], 200):
        answer = files.client.post("/predict", content=FILE, headers=headers)
        assert answer.status_code == status


def test_a_body_without_a_type_is_no_file(files: Api) -> None:
    assert files.client.post("/predict", content=FILE).status_code == 415
    assert files.client.post("/predict", content=b"x", headers={"Accept": "a/b"}).is_error


def test_a_model_that_takes_no_bytes_takes_no_files(served: Api) -> None:
    answer = _post(served, b"text", "application/octet-stream", Accept="application/octet-stream")
    assert answer.status_code == 415
    assert answer.json() == {"error": UnsupportedMediaType.__doc__}
    answer = served.client.post("/predict", json={"input": "a"}, headers={"Accept": "image/png"})
    assert list(answer.json()) == ["input", "result"]
    assert "vary" not in answer.headers


def test_a_file_that_the_model_refuses_is_refused(files: Api) -> None:
    for headers in ({}, {"Async_Mode": "true"}):
        answer = _post(files, b"x" * 1_000_001, **headers, Accept="image/png")
        assert answer.status_code == 422
        assert "1000000" in answer.json()["error"]


def test_errors_are_json_whatever_is_accepted(files: Api) -> None:
    failed = [_post(files, b"fail", Accept="image/png", Prefer=p) for p in ("", "wait=20")]
    unknown = files.client.get("/predict/unknown", headers={"Accept": "image/png"})
    for answer, status in zip([*failed, unknown], (500, 500, 404), strict=True):
        assert answer.status_code == status
        assert answer.json()["error"]


def test_a_body_of_ten_mebibytes_is_accepted_by_default(files: Api) -> None:
    assert Config().max_body == 10 * 2**20
    body = b'{"input": "%b"}' % (b"A" * 4 * 2**19)
    assert _post(files, body, "application/json").status_code == 422, "read, and too large for it"
    assert _post(files, b"x" * 10 * 2**20).status_code == 422
    assert _post(files, b"x" * (10 * 2**20 + 1)).status_code == 413


@pytest.mark.parametrize(
    ("accept", "type_"),
    [
        ([], None),
        (["*/*"], None),
        (["application/json"], None),
        (["application/json, text/plain, */*"], None),
        (["application/problem+json"], None),
        (["text/event-stream"], None),
        (["image/png"], "image/png"),
        (["IMAGE/PNG"], "image/png"),
        (["image/png;q=0.5, application/json"], None),
        (["image/png;q=0.5, application/json;q=0.4"], "image/png"),
        (["image/png; q=0.50", "application/json;q=.4"], "image/png"),
        (["application/json;q=0.2, audio/wav; rate=8000; q=0.3"], "audio/wav"),
        (["image/png;q=0"], None),
        (["image/png;q=0.000, image/*;q=0.001"], "application/octet-stream"),
        (["image/avif,image/webp,image/*,*/*;q=0.8"], "image/avif"),
        (["application/pdf"], "application/pdf"),
        (["application/vnd.ms-excel"], "application/vnd.ms-excel"),
        (["text/html,application/xhtml+xml,*/*;q=0.8"], "application/octet-stream"),
        (["text/plain"], "application/octet-stream"),
        (["image/svg+xml"], "application/octet-stream"),
        (["application/xml"], "application/octet-stream"),
        (["application/xhtml+xml"], "application/octet-stream"),
        (["application/javascript"], "application/octet-stream"),
        (["multipart/x-mixed-replace"], "application/octet-stream"),
        (["image/" + "x" * 10_000], "application/octet-stream"),
        (['image/png"<script>'], "application/octet-stream"),
        (["image/png\u00e9"], "application/octet-stream"),
        (["*, , ;q=1"], None),
        (["," * 30_000], None),
        ([";q=" * 10_000], "application/octet-stream"),
        (["image/png;" + " ;" * 15_000], "image/png"),
        (["image/png;q=1.5, image/gif;q=nan, image/jpeg;q=0.9"], "image/png"),
    ],
)
def test_accept(accept: list[str], type_: str | None) -> None:
    assert file_type(accept) == type_


def test_a_result_of_bytes_is_sent_as_such(files: Api) -> None:
    id_ = _post(files, Async_Mode="true").json()["prediction_id"]
    files.outcome(id_)
    accept = {"Accept": "text/html, application/json;q=0.1"}
    read = files.client.get(f"/predict/{id_}", headers=accept)
    for answer in (_post(files, Accept="text/html"), read):
        assert (answer.status_code, answer.content) == (200, REVERSED)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["vary"] == "Accept"
        assert "server-timing" in answer.headers
    assert read.headers["cache-control"] == "no-store"
    plain = files.read(id_)
    assert plain.json()["output"]["input"] == ENCODED
    assert plain.headers["vary"] == "Accept"


def test_both_kinds_of_bodies_are_described(files: Api) -> None:
    binary = {"schema": {"type": "string", "format": "binary"}}
    document = contract(MODEL).document
    assert files.client.get("/openapi.json").json() == document
    post = document["paths"]["/predict"]["post"]
    assert list(post["requestBody"]["content"]) == ["application/json", "application/octet-stream"]
    assert post["requestBody"]["content"]["application/octet-stream"] == binary
    for described in (post, document["paths"]["/predict/{prediction_id}"]["get"]):
        content = described["responses"]["200"]["content"]
        assert {*content} - {"text/event-stream"} == {
            "application/json",
            "application/octet-stream",
            "*/*",
        }
        assert content["application/octet-stream"] == binary
    assert list(contract().document["paths"]["/predict"]["post"]["requestBody"]["content"]) == [
        "application/json"
    ]
