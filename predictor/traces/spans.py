"""The spans of an async prediction: its waits, its tries and its webhook. Needs the SDK."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from predictor.errors import PredictionError
from predictor.prediction import Attempt, Trace
from predictor.process import call_in_thread

logger = logging.getLogger(__name__)

_FLUSH = 2.0  # seconds that the last spans have at the end of the process
_W3C = TraceContextTextMapPropagator()
_span_id: ContextVar[int] = ContextVar("span_id", default=0)


class _Ids(RandomIdGenerator):
    def generate_span_id(self) -> int:
        return _span_id.get() or super().generate_span_id()


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
        self._provider = TracerProvider(
            resource=resource, shutdown_on_exit=False, id_generator=_Ids()
        )
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
        self, parent: Trace, id_: str, since_ms: float, token: str, lost: list[tuple[float, str]]
    ) -> Iterator[None]:
        """The span of a run, and, when the prediction has ended, those of what was before.

        `since_ms`: its submit. `token`: of its claim. `lost`: of tries whose workers died: when
        that was seen, and the token of the claim.
        """
        context = _W3C.extract(parent)
        links = [Link(self._try(context, each)) for _, each in lost]
        span = self._begin("predictor.run", context, id_, token, links=links)
        with trace.use_span(span, True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except asyncio.CancelledError:
                span.set_attribute("predictor.outcome", "requeued")
                raise
            except PredictionError as error:
                span.set_attribute("predictor.outcome", error.code)
                if error.status >= 500:
                    span.set_status(StatusCode.ERROR, error.code)
                self._tell(context, id_, since_ms, token, lost)
                raise
            self._tell(context, id_, since_ms, token, lost)

    def _tell(
        self, context: Context, id_: str, since_ms: float, token: str, lost: list[tuple[float, str]]
    ) -> None:
        """Add the waits, and the runs whose workers could not."""
        for until, each in [*lost, (0.0, token)]:
            began = float(each.rpartition(":")[2])
            self._begin("predictor.wait", context, id_, start_time=_ns(since_ms)).end(_ns(began))
            if until:
                span = self._begin("predictor.run", context, id_, each, start_time=_ns(began))
                span.set_status(StatusCode.ERROR, "its worker died")
                span.end(_ns(until))
            since_ms = until

    def _begin(
        self, name: str, context: Context, id_: str, token: str = "", **options: Any
    ) -> trace.Span:
        attributes: dict[str, Any] = {"messaging.message.id": id_}
        kind = SpanKind.CONSUMER if token else SpanKind.INTERNAL
        if token:
            worker, number, _ = token.rsplit(":", 2)
            attributes |= {"predictor.worker": worker, "predictor.try": int(number)}
        reset = _span_id.set(self._try(context, token).span_id if token else 0)
        try:
            return self._tracer.start_span(name, context, kind, attributes, **options)
        finally:
            _span_id.reset(reset)

    def _try(self, context: Context, token: str) -> SpanContext:
        """The span of a try: whoever knows its token knows the id."""
        parent = trace.get_current_span(context).get_span_context()
        digest = sha256(f"{parent.span_id} {token}".encode()).digest()
        span_id = int.from_bytes(digest[:8], "big") or 1
        return SpanContext(parent.trace_id, span_id, True, parent.trace_flags)

    async def webhook(
        self, parent: Trace, id_: str, host: str, send: Callable[[Trace], Awaitable[Attempt]]
    ) -> Attempt:
        """The attempt that `send` makes, which takes its span."""
        attributes = {"messaging.message.id": id_, "server.address": host}
        attributes["http.request.method"] = "POST"
        with self._tracer.start_as_current_span(
            "predictor.webhook", _W3C.extract(parent), SpanKind.CLIENT, attributes
        ) as span:
            attempt = await send(self.current())
            if attempt.status:
                span.set_attribute("http.response.status_code", attempt.status)
            if attempt.error:
                span.set_status(StatusCode.ERROR)
        return attempt


def _ns(ms: float) -> int:
    return int(ms * 1_000_000)
