"""Serves a model over HTTP, synchronously or asynchronously. Models import from here."""

from predictor.errors import InvalidInput
from predictor.model.run import Run

__all__ = ["InvalidInput", "Run", "__version__"]

__version__ = "0.1.0"
