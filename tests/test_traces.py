"""One trace shows a prediction from its request to its webhook, whoever died on the way."""

import gzip
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.processes import Process, Processes, eventually
from tests.webhooks.test_deliverer import SECRET, Receiver


class Collector(ThreadingHTTPServer):
    """An OTLP receiver, and the spans that it got, by their services."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.threads = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.threads.start()

    @property
    def environment(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def close(self) -> None:
        self.shutdown()
        self.threads.join()
        self.server_close()

    def named(self, name: str) -> list[Span]:
        return sorted(
            (span for span in self.spans if span.name == name), key=lambda s: s.start_time_unix_nano
        )

    def wait_for(self, name: str, count: int = 1) -> list[Span]:
        found: list[Span] = eventually(
            lambda: len(found := self.named(name)) >= count and found, f"{count} {name}", 20
        )
        assert len(found) == count
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.server.services.add(names["service.name"])
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector for this test."""
    started = Collector()
    yield started
    started.close()


def attributes(span: Span) -> dict[str, Any]:
    values = {each.key: each.value for each in span.attributes}
    return {name: getattr(value, value.WhichOneof("value") or "") for name, value in values.items()}


def test_one_trace_shows_a_prediction_whose_worker_was_killed(
    processes: Processes, collector: Collector, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"webhook_secrets": SECRET, "webhook_allow": "127.0.0.1"}
    settings |= {"lease": 1, "model": "tests.models.traced:predict"} | collector.environment
    receiver = Receiver()
    api = processes.api(**settings)
    worker = processes.worker(**settings)
    processes.start("python", "-m", "predictor.webhooks", **settings)
    given = f"00-{'ab' * 16}-{'cd' * 8}-01"
    id_ = api.submit(
        str(tmp_path / "go"),
        **{"Webhook-Url": receiver.url, "traceparent": given, "tracestate": "a=b"},
    )
    eventually(lambda: api.status(id_)["status"] == "running", "a run")
    worker.kill()
    (tmp_path / "go").touch()
    processes.worker(**settings)
    assert api.outcome(id_, 30).status_code == 200
    (request,) = collector.wait_for("POST /predict")
    lost, run = collector.wait_for("predictor.run", 2)
    waits = collector.wait_for("predictor.wait", 2)
    (inside,) = collector.wait_for("inside")
    (webhook,) = collector.wait_for("predictor.webhook")
    receiver.close()
    spans = [request, lost, run, *waits, inside, webhook]
    assert {span.trace_id.hex() for span in spans} == {"ab" * 16}
    assert len({span.span_id for span in spans}) == len(spans)
    assert request.parent_span_id.hex() == "cd" * 8
    assert {s.parent_span_id for s in [lost, run, *waits, webhook]} == {request.span_id}
    assert inside.parent_span_id == run.span_id
    assert [link.span_id for link in run.links] == [lost.span_id]
    assert (lost.status.code, lost.status.message) == (Status.STATUS_CODE_ERROR, "its worker died")
    assert (run.status.code, webhook.status.code) == (Status.STATUS_CODE_UNSET,) * 2
    assert [attributes(span)["predictor.try"] for span in (lost, run)] == [1, 2]
    order = [waits[0], lost, waits[1], run]
    for before, after in itertools.pairwise(order):
        assert abs(before.end_time_unix_nano - after.start_time_unix_nano) < 0.5e9
    assert attributes(request)["http.response.status_code"] == 202
    assert attributes(request)["http.route"] == "/predict"
    assert attributes(webhook)["http.response.status_code"] == 204
    assert {attributes(s)["messaging.message.id"] for s in [lost, run, *waits, webhook]} == {id_}
    headers, _ = receiver.told[0]
    assert headers["traceparent"] == f"00-{'ab' * 16}-{webhook.span_id.hex()}-01"
    assert headers["tracestate"] == "a=b"
    assert collector.services == {"predictor"}


def test_outcomes_and_routes(processes: Processes, collector: Collector) -> None:
    settings = {"model": "tests.models.raises:predict", **collector.environment}
    api = processes.api(OTEL_SERVICE_NAME="iris", **settings)
    worker = processes.worker(OTEL_SERVICE_NAME="iris", **settings)
    failed, refused = api.submit("exception"), api.submit("refused")
    assert api.outcome(failed).status_code == 500
    assert api.outcome(refused).status_code == 422
    assert api.predict("exception").status_code == 500
    assert api.client.get("/health/live").status_code == 200
    worker.stop()
    api.process.stop()
    runs = {
        attributes(span)["predictor.outcome"]: span for span in collector.named("predictor.run")
    }
    assert runs["model_failed"].status.code == Status.STATUS_CODE_ERROR
    assert runs["invalid_input"].status.code == Status.STATUS_CODE_UNSET
    assert collector.named("GET /predict/{prediction_id}")
    codes = [attributes(s)["http.response.status_code"] for s in collector.named("POST /predict")]
    assert codes == [202, 202, 500]
    assert not [span for span in collector.spans if "health" in span.name]
    assert collector.services == {"iris"}


def test_what_is_not_sampled_is_not_traced(processes: Processes, collector: Collector) -> None:
    settings = {"mock_delay": 0, "OTEL_TRACES_SAMPLER": "always_off"} | collector.environment
    api, worker = processes.api(**settings), processes.worker(**settings)
    assert api.outcome(api.submit("x")).status_code == 200
    worker.stop()
    api.process.stop()
    assert not collector.spans


def test_a_collector_that_is_away_is_one_line_and_delays_no_stop(processes: Processes) -> None:
    settings: dict[str, Any] = {"mock_delay": 0, "OTEL_BSP_SCHEDULE_DELAY": 10}
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://user:sesame@127.0.0.1:9"
    settings["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.2"
    api, worker = processes.api(**settings), processes.worker(**settings)
    for _ in range(20):
        assert api.outcome(api.submit("x")).status_code == 200
    text = "traces are lost: the collector does not take them"
    for process in (api.process, worker):
        eventually(partial(_says, process, text), "a line")
        began = time.monotonic()
        assert process.stop() in {0, -signal.SIGTERM}
        assert time.monotonic() - began < 4
        assert process.output.count(text) == 1
        assert process.output.count("opentelemetry") == 0
        assert "sesame" not in process.output


def _says(process: Process, text: str) -> bool:
    return text in process.output


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, ""),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "no traces: the only protocol is http/protobuf, not 'grpc'",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "WITHOUT": "opentelemetry.sdk"},
            "no traces: they need pip install 'predictor-server[traces]'",
        ),
    ],
)
def test_off_nothing_of_it_is_imported(environment: dict[str, str], line: str) -> None:
    program = (
        "import os, sys\n"
        "missing = os.environ.get('WITHOUT')\n"
        "if missing: sys.modules[missing] = None\n"
        "if not os.environ.keys() & {'OTEL_TRACES_EXPORTER', 'OTEL_SDK_DISABLED'}:\n"
        "    import predictor.worker.worker, predictor.webhooks.deliverer, predictor.api.app\n"
        "from predictor.traces import start_tracing\n"
        "assert start_tracing() is None\n"
        "assert not [name for name in sys.modules if 'opentelemetry.sdk.' in name]\n"
        "assert missing or 'opentelemetry.exporter' not in str(sys.modules)\n"
    )
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == line
