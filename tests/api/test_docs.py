import re
from typing import Any

import pytest

from tests.processes import Api


@pytest.fixture(scope="session")
def schema(served: Api) -> Any:
    return served.client.get("/openapi.json").json()


def test_the_page_needs_nothing_from_elsewhere(served: Api) -> None:
    page = served.client.get("/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) >= 3
    assert "http" not in "".join(assets)
    for asset in assets:
        assert served.client.get(asset).status_code == 200
    assert served.client.get("/redoc").status_code == 404


def test_every_answer_of_every_route_has_an_example(schema: Any) -> None:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                where = f"{method} {path} {status}"
                if status == "204":
                    continue
                if stream := answer["content"].get("text/event-stream"):
                    assert stream["example"]
                    continue
                examples = answer["content"]["application/json"]["examples"]
                assert examples, where
                assert answer["description"], where
                if status == "503":
                    assert "Retry-After" in answer["headers"], where


def test_the_contract_is_what_the_examples_show(schema: Any) -> None:
    post = schema["paths"]["/predict"]["post"]
    get = schema["paths"]["/predict/{prediction_id}"]["get"]

    def example(operation: Any, status: str) -> Any:
        examples = operation["responses"][status]["content"]["application/json"]["examples"]
        return next(iter(examples.values()))["value"]

    assert list(example(post, "200")) == ["input", "result"]
    assert example(post, "202")["message"] == "Request received. Processing asynchronously."
    assert example(get, "202") == {"error": "Prediction is still being processed."}
    assert example(get, "404") == {"error": "Prediction ID not found."}
    assert list(example(get, "200")) == ["prediction_id", "output"]


def test_headers_and_body_of_the_request_are_described(schema: Any) -> None:
    post = schema["paths"]["/predict"]["post"]
    mode = post["parameters"][0]
    assert (mode["name"], mode["in"], mode["required"]) == ("Async-Mode", "header", False)
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["input"]["type"] == "string"
    assert body["required"] == ["input"]


def test_no_answer_is_promised_that_is_never_given(schema: Any) -> None:
    """FastAPI adds its own 422, of another shape, wherever a parameter is validated."""
    assert "HTTPValidationError" not in schema["components"]["schemas"]
