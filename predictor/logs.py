"""Logs: every line of a process has a time, a level, a logger, and ids of what it is about."""

import io
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from pydantic_core import to_json
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from predictor.errors import Canceled, InvalidInput, ModelFailed, PredictionError
from predictor.prediction import Prediction, outcome_of

#: `request_id` and `prediction_id`, where there is one. Tasks, and threads of ours, inherit it.
about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))

_CONSOLE = "%(asctime)s %(levelname)-7s %(name)s%(ids)s: %(message)s"
#: What a record has beside the fields of its line; `extra` is arq's.
_UNSEEN = frozenset({*RESERVED_ATTRS, "color_message", "extra", "ids", "taskName"})
#: Whose INFO has inputs or URLs, and those that configure handlers of their own.
_QUIET, _OTHERS = ("arq", "httpx", "httpcore"), ("uvicorn.error", "uvicorn.asgi")
_OURS = ("predictor", "arq", "uvicorn", "asyncio")
#: Bytes of a printed line above which it is cut, and begun lines that are held.
_LONGEST, _MOST_BEGUN = 8192, 100
#: In the text of pydantic's errors: a value, which may be a result.
_VALUE = re.compile(r"input_value=.*, (?=input_type=)")
_ends = logging.getLogger("predictor.predictions")


def say_about(**ids: str) -> None:
    """Name what the lines of this task, or thread, are about from now on."""
    about.set({**about.get(), **ids})


def joined(several: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What the lines of a batch are about: the ids of all that are in it."""
    names = dict.fromkeys(name for each in several for name in each)
    return {name: ",".join(each[name] for each in several if name in each) for name in names}


def log_end(id_: str, mode: str, outcome: str, queue: float, run: float) -> None:
    """Log that a prediction has ended. `queue`, `run`: seconds that it waited, and ran."""
    if _ends.isEnabledFor(logging.INFO):
        fields: dict[str, Any] = {"prediction_id": id_, "mode": mode, "outcome": outcome}
        fields |= {"queue_seconds": round(queue, 6), "run_seconds": round(run, 6)}
        text = f"prediction {id_} {mode} {outcome} (queue {queue:.3f} s, run {run:.3f} s)"
        _ends.info(text, extra=fields)


def log_unrun(ended: Prediction, mode: str) -> None:
    """Log the end of a prediction that no worker has ended."""
    queue = max(0.0, (ended.finished or 0) - ended.created)
    log_end(ended.id, mode, outcome_of(ended.error or Canceled()), queue, 0.0)


def is_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(each, _Handler) and each.is_json for each in logging.root.handlers)


def configure_logging(log_format: str, log_level: str, *, prints: bool = False) -> None:
    """Log to standard error, in one format; `prints`: what is printed, too."""
    handler = _Handler(log_format)
    level = logging.getLevelName(log_level.upper())
    # uvicorn has removed the handlers of its access log if it is not wanted.
    access_log = ["uvicorn.access"] * logging.getLogger("uvicorn.access").hasHandlers()
    for name in (*_OTHERS, *access_log):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
    for name in _OURS:  # apart from the root logger, which is the model's to configure
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # arq sets its own level and handler before it starts the worker.
    logging.getLogger("arq.worker").filters = [lambda record: record.levelno >= logging.WARNING]
    logging.root.handlers = [handler]
    logging.root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = lambda *error: logging.root.error("uncaught exception", exc_info=error)
    sys.unraisablehook = threading.excepthook = _uncaught
    if prints:
        sys.stdout = _printed("model.stdout", logging.INFO, sys.__stdout__, handler)
        sys.stderr = _printed("model.stderr", logging.WARNING, sys.__stderr__, handler)


def enable_logging() -> None:
    """Undo what `logging.config` does, by default, to loggers that are there."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.startswith((*_OURS, "model.std")):
            logger.disabled = False


def end_printed_lines() -> None:
    """Log the lines that this thread has begun to print about its prediction."""
    try:  # contextlib.suppress would be one percent of the instructions of a sync request
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # of a stream of the model's
        return


def _uncaught(args: Any) -> None:
    """Log an exception that ends a thread, or that nobody can get."""
    if not issubclass(args.exc_type, SystemExit):
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.root.error("uncaught exception", exc_info=error)


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, log_format: str) -> None:
        stream: Any = sys.__stderr__ or Path(os.devnull).open("w")  # noqa: SIM115
        stream.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale is
        super().__init__(stream)
        is_auto = log_format not in {"console", "json"}
        self.is_json = not self.stream.isatty() if is_auto else log_format == "json"
        self.setFormatter(_Json() if self.is_json else _Redacted(_CONSOLE))

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids. What clients cause has no traceback: it would show only this package."""
        ids = about.get()
        vars(record).update(ids, ids=f" [{' '.join(ids.values())}]" if ids else "")
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PredictionError) and not isinstance(error, ModelFailed):
            record.exc_info = None
        if record.name == "asyncio" and error:
            record.msg = str(record.msg).partition("\n")[0]  # what follows has the error's text
        if record.name == "uvicorn.access" and isinstance(record.args, tuple):
            client, method, path, *rest = record.args
            record.args = client, method, str(path).partition("?")[0], *rest
        return not isinstance(error, InvalidInput | Canceled)  # which may quote the input

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Log the bare text where its arguments do not fit; nothing where nobody reads."""
        if record.args:
            record.args = None
            self.emit(record)


class _Redacted(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback; of errors of the store only their kinds: their texts have commands."""
        shown = traceback.TracebackException(*ei)
        chain = [(ei[1], shown)]
        for error, each in chain:
            kind = type(error).__module__.partition(".")[0]
            if kind in {"redis", "pydantic_core"}:
                vars(each)["_str"] = _VALUE.sub("", str(error)) if kind != "redis" else ""
            chain += [(error.__cause__, each.__cause__)] if each.__cause__ else []
            chain += [(error.__context__, each.__context__)] if each.__context__ else []
            if isinstance(error, BaseExceptionGroup):
                chain += zip(error.exceptions, each.exceptions or (), strict=False)
        return "".join(shown.format()).rstrip("\n")


class _Json(_Redacted, JsonFormatter):
    converter = staticmethod(time.gmtime)
    default_time_format, default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def add_fields(self, log_data: Any, record: logging.LogRecord, message_dict: Any) -> None:
        """As the base class, but for what is not asked for here: in a third of the time."""
        names = {"level": record.levelname, "logger": record.name, "message": record.message}
        more = {name: each for name, each in vars(record).items() if name not in _UNSEEN}
        log_data |= {"time": self.formatTime(record)} | names | more | message_dict

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return to_json(log_data, fallback=repr, inf_nan_mode="null").decode()
        except ValueError:  # a text that UTF-8 cannot encode
            return json.dumps(log_data, default=repr)


def _printed(name: str, level: int, stream: TextIO | None, handler: _Handler) -> TextIO:
    logger = logging.getLogger(name)
    # Not by the root logger: a model may add a handler to it that prints.
    logger.handlers, logger.propagate = [handler], False
    raw: Any = _Printed(partial(logger.log, level, "%s"), stream)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)


class _Printed(io.RawIOBase):
    """Logs what is written to it, line by line. A line is of one thread and one prediction."""

    def __init__(self, log: Callable[[str], None], stream: TextIO | None) -> None:
        self._log = log
        self._begun: dict[Any, bytes] = {}  # by thread, so that no lock is needed
        for name in ("isatty", "fileno") if stream else ():
            setattr(self, name, getattr(stream, name))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), _LONGEST):
            self._add(bytes(whole[start : start + _LONGEST]))
        return len(whole)

    def flush(self) -> None:
        """Log the line that this thread has begun."""
        if self._begun:
            self._add(b"\n")

    def close(self) -> None:
        """Stay open: what a model replaces closes this when it is collected."""
        self.flush()

    def _add(self, piece: bytes) -> None:
        line = threading.get_ident(), about.get().get("prediction_id")
        *lines, rest = re.split(rb"[\r\n]+", self._begun.pop(line, b"") + piece)
        if rest and len(rest) < _LONGEST and len(self._begun) < _MOST_BEGUN:
            self._begun[line], rest = rest, b""
        for each in filter(None, [*lines, rest]):
            self._log(each.decode(errors="replace"))
