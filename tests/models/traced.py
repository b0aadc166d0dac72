"""Waits for a file, within a span of its own."""

import time
from pathlib import Path

from opentelemetry import trace


def predict(path: str) -> str:
    with trace.get_tracer(__name__).start_as_current_span("inside"):
        while not Path(path).exists():
            time.sleep(0.01)
    return path
