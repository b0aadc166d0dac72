"""A client that nobody here wrote, generated from /openapi.json."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import BIN, Api, Processes


@pytest.fixture
def generated(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports modules of the generated package."""
    schema, config = tmp_path / "openapi.json", tmp_path / "config.json"
    schema.write_text(served.client.get("/openapi.json").text)
    config.write_text(json.dumps({"post_hooks": []}))
    made = subprocess.run(
        [
            *(BIN / "openapi-python-client", "generate", "--meta", "none", "--fail-on-warning"),
            *("--path", schema, "--config", config, "--output-path", tmp_path / "generated_client"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"generated_client.{name}")
    for name in [name for name in sys.modules if name.startswith("generated_client")]:
        del sys.modules[name]


@pytest.fixture
def served(request: pytest.FixtureRequest, processes: Processes) -> Api:
    model = getattr(request, "param", "predictor.mock:predict")
    processes.worker(model=model, mock_delay=0)
    return processes.api(model=model, mock_delay=0)


@pytest.mark.parametrize("served", ["tests.models.typed:price"], indirect=True)
def test_a_generated_client_knows_the_model_s_types(served: Api, generated: Any) -> None:
    models, calls = generated("models"), "api.predictions."
    order = models.Order(items=[models.Item(name="a", count=3)])
    body = models.PredictionRequest(input_=order)
    with generated("client").Client(base_url=str(served.client.base_url)) as client:
        output = generated(calls + "predict").sync(client=client, body=body)
        assert (output.result.total, output.result.currency) == (6.0, "EUR")
        accepted = generated(calls + "predict").sync(
            client=client, body=body, async_mode=models.PredictAsyncMode.TRUE
        )
        read = generated(calls + "read_prediction").sync
        done = read(accepted.prediction_id, client=client, prefer="wait=10")
        assert done.output.result.total == 6.0


def test_a_generated_client_makes_both_kinds_of_prediction(served: Api, generated: Any) -> None:
    with generated("client").Client(base_url=str(served.client.base_url)) as client:
        _use(client, generated)


def _use(client: Any, generated: Any) -> None:
    models, calls = generated("models"), "api.predictions."
    predict = generated(calls + "predict").sync
    body = models.PredictionRequest(input_="ü")
    output = predict(client=client, body=body)
    assert isinstance(output, models.PredictionOutput)
    assert output.input_ == "ü"
    accepted = predict(client=client, body=body, async_mode=models.PredictAsyncMode.TRUE)
    assert isinstance(accepted, models.PredictionAccepted)
    id_ = accepted.prediction_id
    done = generated(calls + "read_prediction").sync(id_, client=client, prefer="wait=10")
    assert isinstance(done, models.PredictionDone)
    assert done.output.input_ == "ü"
    status = generated(calls + "read_status").sync(id_, client=client)
    assert isinstance(status, models.PredictionStatus)
    assert status.tries == 1
    assert (
        generated(calls + "erase_prediction").sync_detailed(id_, client=client).status_code == 204
    )
    unknown = generated(calls + "read_prediction").sync(id_, client=client)
    assert unknown == models.Error(error="Prediction ID not found.")


@pytest.mark.parametrize("served", ["tests.models.uneven:node"], indirect=True)
def test_a_generated_client_of_a_type_that_contains_itself(served: Api, generated: Any) -> None:
    models = generated("models")
    body = models.PredictionRequest(input_=models.Node("a", next_=models.Node("b")))
    with generated("client").Client(base_url=str(served.client.base_url)) as client:
        output = generated("api.predictions.predict").sync(client=client, body=body)
    assert output.result.next_.name == "b"
