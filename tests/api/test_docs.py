import re
from typing import Any

import httpx
import pytest

from predictor.config import Config
from tests.contract import contract
from tests.processes import Api, Processes


@pytest.fixture(scope="session")
def schema(served: Api) -> Any:
    return served.client.get("/openapi.json").json()


def test_docs_work_without_internet(served: Api) -> None:
    page = served.client.get("/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) >= 3
    assert "http" not in "".join(assets)
    for asset in assets:
        assert served.client.get(asset).status_code == 200
    assert served.client.get("/redoc").status_code == 404


def test_responses_are_checked_against_the_served_document(schema: Any) -> None:
    assert schema == contract(Config().model).document


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status_code": 418}, "is not described"),
        ({"json": {"input": "a"}}, "'result' is a required property"),
        ({"json": {"input": "a", "result": "b", "more": 1}}, "'more' was unexpected"),
        ({"content": b"a", "headers": {"content-type": "text/plain"}}, "of type text/plain"),
        ({"headers": {"x-new": "1"}}, "x-new"),
        ({"headers": {"server-timing": "1"}}, "server-timing is not as described"),
    ],
)
def test_an_undescribed_response_is_detected(change: dict[str, Any], says: str) -> None:
    request = httpx.Request("POST", "http://x/predict")
    given: dict[str, Any] = {"status_code": 200, "json": {"input": "a", "result": "b"}} | change
    if "content" in given:
        del given["json"]
    headers = {"x-request-id": "1"} | given.pop("headers", {})
    response = httpx.Response(request=request, **given)
    response.headers.update(headers)
    with pytest.raises(AssertionError, match=says):
        contract().check(response)


def test_every_response_is_described(schema: Any) -> None:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                where = f"{method} {path} {status}"
                assert response["description"], where
                if status == "503":
                    assert "Retry-After" in response["headers"], where
                for media_type in response.get("content", {}).values():
                    assert "schema" in media_type or media_type["example"], where
                    for example in media_type.get("examples", {}).values():
                        assert list(example["value"]) == ["error"], where


def test_the_contract_is_what_the_schemas_show(schema: Any) -> None:
    def properties(path: str, method: str, status: str) -> Any:
        response = schema["paths"][path][method]["responses"][status]
        reference = response["content"]["application/json"]["schema"]["$ref"]
        return schema["components"]["schemas"][reference.rpartition("/")[2]]["properties"]

    post, get = ("/predict", "post"), ("/predict/{prediction_id}", "get")
    assert list(properties(*post, "200")) == ["input", "result"]
    accepted = "Request received. Processing asynchronously."
    assert properties(*post, "202")["message"]["const"] == accepted
    assert properties(*get, "202")["error"]["const"] == "Prediction is still being processed."
    assert list(properties(*get, "200")) == ["prediction_id", "output"]
    unknown = schema["paths"]["/predict/{prediction_id}"]["get"]["responses"]["404"]
    examples = unknown["content"]["application/json"]["examples"]
    assert examples["UnknownPrediction"]["value"] == {"error": "Prediction ID not found."}


def _default(schema: Any, media_type: Any) -> Any:
    """What Swagger UI fills in: examples, else values of the type."""
    name = media_type["schema"]["$ref"].rpartition("/")[2]
    properties = schema["components"]["schemas"][name]["properties"]
    return {name: value["examples"][0] for name, value in properties.items()}


def test_the_default_request_of_docs_succeeds_twice(served: Api, schema: Any) -> None:
    """Swagger UI sends the example or the default of each parameter, and an example of the body."""
    post = schema["paths"]["/predict"]["post"]
    headers = {}
    for parameter in post["parameters"]:
        given = parameter | parameter["schema"]
        for key in ("example", "default"):
            if key in given:
                headers[parameter["name"]] = given[key]
    body = _default(schema, post["requestBody"]["content"]["application/json"])
    for text in (body["input"], "another text"):
        answer = served.client.post("/predict", json=body | {"input": text}, headers=headers)
        assert answer.status_code in {200, 202}
        assert served.client.post("/predict", json=body | {"input": text}).status_code == 200


@pytest.mark.parametrize("name", ["Async-Mode", "Prefer"])
def test_both_headers_say_that_async_mode_overrides_a_wait(schema: Any, name: str) -> None:
    parameters = schema["paths"]["/predict"]["post"]["parameters"]
    (description,) = [each["description"] for each in parameters if each["name"] == name]
    says = {"Async-Mode": "whatever `Prefer` says", "Prefer": "Without effect beside"}
    assert says[name] in " ".join(description.split())


def test_the_input_of_an_output_may_be_left_out(schema: Any) -> None:
    output = schema["components"]["schemas"]["PredictionOutput"]
    assert output["required"] == ["result"]
    assert "`Prefer: return=minimal`" in output["description"]
    assert "default" not in output["properties"]["input"]


def test_headers_and_body_of_the_request_are_described(schema: Any) -> None:
    post = schema["paths"]["/predict"]["post"]
    mode = post["parameters"][0]
    assert (mode["name"], mode["in"], mode["required"]) == ("Async-Mode", "header", False)
    reference = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = schema["components"]["schemas"][reference.rpartition("/")[2]]
    assert body["properties"]["input"]["type"] == "string"
    assert body["required"] == ["input"]


def test_no_response_is_described_that_is_never_sent(schema: Any) -> None:
    """FastAPI adds its own 422, of another shape, wherever a parameter is validated."""
    assert "HTTPValidationError" not in schema["components"]["schemas"]


@pytest.mark.parametrize(
    ("model", "value", "result"),
    [
        ("price", 1.5, "1.5"),
        ("node", {"name": "a", "next": {"name": "b"}}, None),
        ("box", {"w": 2, "h": 3}, {"w": 2, "h": 3, "area": 6}),
        ("named", {"Name": "a"}, {"called": "a"}),
        ("numbers", "[1, 2]", 3),
    ],
)
def test_types_that_are_not_read_as_they_are_written(
    processes: Processes, model: str, value: Any, result: Any
) -> None:
    """The page looks for the names; each response is checked against the document."""
    api = processes.api(model=f"tests.models.uneven:{model}")
    names = set(api.client.get("/openapi.json").json()["components"]["schemas"])
    assert {"PredictionRequest", "PredictionOutput", "PredictionDone"} <= names
    answer = api.client.post("/predict", json={"input": value})
    assert answer.status_code == 200, answer.text
    assert answer.json()["input"] == value
    assert result in (None, answer.json()["result"])
