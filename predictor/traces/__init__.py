"""Traces: the spans of predictions, sent to a collector by OTLP; off, they cost nothing."""

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

from predictor.prediction import Attempt, Trace

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


class Traces:
    """What records the spans of a process. This one records nothing."""

    is_on = False

    def current(self) -> Trace:
        """The current span, for others to go on with; empty if it is not sampled."""
        return {}

    def run(
        self, parent: Trace, id_: str, since_ms: float, token: str, lost: list[tuple[float, str]]
    ) -> AbstractContextManager[None]:
        """The span of a run, and, when the prediction has ended, those of what was before.

        `since_ms`: its submit. `token`: of its claim. `lost`: of tries whose workers died: when
        that was seen, and the token of the claim.
        """
        return nullcontext()

    async def webhook(
        self, parent: Trace, id_: str, host: str, send: Callable[[Trace], Awaitable[Attempt]]
    ) -> Attempt:
        """The attempt that `send` makes, which takes its span."""
        return await send({})

    async def close(self) -> None:
        """Send what is left, within two seconds."""


def start_tracing() -> Traces:
    """What records spans, if OpenTelemetry's own variables name a collector, or ask for `otlp`."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_asked_for = exporter == "otlp" or (not exporter and any(map(os.environ.get, _ENDPOINTS)))
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), _HTTP)
    if is_asked_for and not is_off and protocol != _HTTP:
        logger.warning("no traces: the only protocol is %s, not %.40r", _HTTP, protocol)
    elif is_asked_for and not is_off:
        try:
            from predictor.traces.spans import Spans

            return Spans()
        except ImportError:
            logger.warning("no traces: they need pip install 'predictor-server[traces]'")
    return Traces()
