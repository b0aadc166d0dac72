"""Serves a model over HTTP, synchronously or asynchronously. Models import from here."""

import importlib
from typing import TYPE_CHECKING, Any

from predictor.errors import InvalidInput

if TYPE_CHECKING:
    from predictor.model.run import Run
    from predictor.model.signature import batched

__all__ = ["InvalidInput", "Run", "__version__", "batched"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import late what only models need: a heartbeat imports this package, too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "run" if name == "Run" else "signature"
    return getattr(importlib.import_module(f"predictor.model.{module}"), name)
