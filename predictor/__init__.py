"""Predictor: a model behind HTTP, answered at once or later. A model's author imports from here."""

from predictor.errors import InvalidInput
from predictor.model.run import Run

__all__ = ["InvalidInput", "Run", "__version__"]

__version__ = "0.1.0"
