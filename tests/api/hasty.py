"""The protocol with short times, so that a test need not wait for the long ones."""

from predictor.api import protocol
from predictor.api.protocol import Protocol

__all__ = ["Protocol"]

protocol._HEAD_SECONDS = 1.0
protocol._LINGER = 0.3
protocol._READ_SECONDS, protocol._READ_BYTES = 1.0, 300_000
