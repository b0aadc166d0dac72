"""The spans of an async prediction: its waits, its tries and its webhook. Needs the SDK."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from predictor.errors import PredictionError
from predictor.prediction import Attempt, Trace
from predictor.process import call_in_thread

logger = logging.getLogger(__name__)

_FLUSH = 2.0  # seconds that the last spans have at the end of the process
_W3C = TraceContextTextMapPropagator()
#: Tries whose workers died: when that was seen, in milliseconds, and the tokens of the claims.
Lost = list[tuple[float, str]]


class _Exporter(OTLPSpanExporter):
    """Logs once that the collector is away, instead of each time."""

    _is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if (is_away := result is not SpanExportResult.SUCCESS) != self._is_away:
            self._is_away = is_away
            text = "are lost: the collector does not take them" if is_away else "are taken again"
            logger.warning("traces %s", text)
        return result


class Spans:
    """Records the spans of this process, and those of tries whose workers died."""

    def __init__(self) -> None:
        for name in ("exporter.otlp.proto.http.trace_exporter", "sdk._shared_internal"):
            logging.getLogger(f"opentelemetry.{name}").setLevel(logging.CRITICAL)
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "predictor"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        trace.set_tracer_provider(self._provider)  # for FastAPI, and for spans of the model
        self._tracer = self._provider.get_tracer("predictor")

    async def close(self) -> None:
        """Send what is left, for a moment at most."""
        await asyncio.wait({call_in_thread(self._provider.shutdown)}, timeout=_FLUSH)

    def current(self) -> Trace:
        """The current span, for others to go on with; empty if it is not sampled."""
        headers: dict[str, str] = {}
        if trace.get_current_span().get_span_context().trace_flags.sampled:
            _W3C.inject(headers)
        return headers

    @contextmanager
    def run(
        self, parent: Trace, id_: str, since_ms: float, token: str, lost: Lost
    ) -> Iterator[None]:
        """The span of a run, and, when the prediction has ended, those of what was before.

        `since_ms`: its submit. `token`: of its claim.
        """
        context, links, before = _W3C.extract(parent), list[Link](), ExitStack()
        start, about = self._tracer.start_span, {"messaging.message.id": id_}
        for until, each in [*lost, (0.0, token)]:
            began = float(each.rpartition(":")[2])
            wait = start("predictor.wait", context, attributes=about, start_time=_ns(since_ms))
            before.callback(wait.end, _ns(began))
            if until:
                run = self._begin_run(context, id_, each, start_time=_ns(began))
                run.set_status(StatusCode.ERROR, "its worker died")
                before.callback(run.end, _ns(until))
                links.append(Link(run.get_span_context()))
            since_ms = until
        span = self._begin_run(context, id_, token, links=links)
        ours = trace.use_span(span, True, record_exception=False, set_status_on_exception=False)
        with before, ours:
            try:
                yield
            except asyncio.CancelledError:
                span.set_attribute("predictor.outcome", "requeued")
                before.pop_all()  # the next run shows them
                raise
            except PredictionError as error:
                span.set_attribute("predictor.outcome", error.code)
                if error.status >= 500:
                    span.set_status(StatusCode.ERROR, error.code)
                raise

    def _begin_run(self, context: Context, id_: str, token: str, **options: Any) -> trace.Span:
        worker, number, _ = token.rsplit(":", 2)
        attributes: dict[str, str | int] = {"messaging.message.id": id_, "predictor.worker": worker}
        attributes["predictor.try"] = int(number)
        kind = SpanKind.CONSUMER
        return self._tracer.start_span("predictor.run", context, kind, attributes, **options)

    async def webhook(
        self, parent: Trace, id_: str, host: str, send: Callable[[Trace], Awaitable[Attempt]]
    ) -> Attempt:
        """The attempt that `send` makes, which takes its span."""
        name, context = "predictor.webhook", _W3C.extract(parent)
        about = {"messaging.message.id": id_, "server.address": host, "http.request.method": "POST"}
        begin = self._tracer.start_as_current_span
        with begin(name, context, SpanKind.CLIENT, about) as span:
            attempt = await send(self.current())
            if attempt.status:
                span.set_attribute("http.response.status_code", attempt.status)
            if attempt.error:
                span.set_status(StatusCode.ERROR)
        return attempt


def _ns(ms: float) -> int:
    return int(ms * 1_000_000)
