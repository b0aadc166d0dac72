"""What every process does: it logs, says that it is ready, and ends if it cannot start."""

import contextlib
import functools
import logging
import logging.config
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

from predictor.config import Config
from predictor.errors import (
    CANNOT_START,
    Canceled,
    ConfigError,
    InvalidInput,
    ModelFailed,
    PredictionError,
)

_CONSOLE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _ExpectedFailures(logging.Filter):
    """Logs failures of predictions without a traceback, which would point at our own code.

    What a client caused is INFO: ERROR is for the operator.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PredictionError) and not isinstance(error, ModelFailed):
            record.exc_info = None
        if isinstance(error, InvalidInput | Canceled):
            record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger("predictor").isEnabledFor(record.levelno)


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


@contextlib.contextmanager
def ends_if_misconfigured() -> Iterator[None]:
    """Turn a ConfigError into one line on standard error and the exit status CANNOT_START."""
    try:
        yield
    except ConfigError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(CANNOT_START)


def notify_ready() -> None:
    """Send READY=1 to the socket that NOTIFY_SOCKET names, if it does."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
        to.connect(address)
        to.send(f"READY=1\nMAINPID={os.getpid()}".encode())


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@functools.cache
def disown_forks() -> None:
    """From now on, what is forked from this process has none of its handling of signals.

    It would share the wake-up descriptor of the event loop, and tell that one of its own signals:
    even in its first moment, so that signals are held back until it is free of them.
    """
    owner = os.getpid()
    release = functools.partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _SIGNALS)

    def disown() -> None:
        if os.getppid() == owner:  # and not in what a forked process forks
            signal.set_wakeup_fd(-1)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
        release()

    hold = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, _SIGNALS)
    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=disown)
