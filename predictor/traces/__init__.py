"""Traces: the spans of predictions, sent to a collector by OTLP; off, they cost nothing."""

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.traces.spans import Spans as Traces
else:
    Traces = Any

__all__ = ["Traces", "start_tracing"]
logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


def start_tracing() -> Traces | None:
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
    return None
