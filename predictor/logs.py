"""How the processes write their log."""

import logging
import logging.config
from typing import Any

from predictor.config import Config
from predictor.errors import ModelFailed, PredictionError

_CONSOLE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _ExpectedFailures(logging.Filter):
    """Takes the traceback off failures that say it all: it would point at our own code."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PredictionError) and not isinstance(error, ModelFailed):
            record.exc_info = None
        return True


def configure_logging(config: Config) -> None:
    """Send what this process, arq and uvicorn have to say to standard error, in one format.

    arq writes a line with the input for every job at INFO; inputs do not belong in a log, so its
    lines start at WARNING.
    """
    level = config.log_level.upper()
    own: dict[str, Any] = {"handlers": ["stderr"], "level": level, "propagate": False}
    quiet = own | {"level": "WARNING" if level in {"DEBUG", "INFO"} else level}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "console": {"format": _CONSOLE},
                "json": {"()": "pythonjsonlogger.json.JsonFormatter", "fmt": _JSON},
            },
            "filters": {"expected": {"()": _ExpectedFailures}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": config.log_format,
                    "filters": ["expected"],
                }
            },
            "loggers": {
                "predictor": own,
                "arq": quiet,
                "uvicorn": own,
                "uvicorn.access": own,
                "uvicorn.error": {"level": level},
            },
        }
    )
