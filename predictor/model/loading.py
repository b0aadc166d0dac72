"""Loads the model that PREDICTOR_MODEL names, or explains in one line why it cannot be."""

import contextlib
import importlib
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.logs import enable_logging
from predictor.model.model import Model
from predictor.model.processes import Processes

logger = logging.getLogger(__name__)

_MOVED = {"predictor.mock": "predictor.model.mock"}  # old name: new name


def configured_model(config: Config) -> Model:
    """The model, to be run as `config` says. Not started yet. Raises ConfigError."""
    # A model may change the current folder, and processes that start later need these, too.
    # What does not exist is no path: some installations find their modules by such a name.
    sys.path[:] = [str(Path(each).absolute()) if Path(each).exists() else each for each in sys.path]
    with _explained(config.model):
        processes = Processes(config, config.slots) if config.runs_in == "process" else None
        return Model(_find(config.model), config.max_result, processes)


@contextlib.contextmanager
def _explained(path: str, what: str = "") -> Iterator[None]:
    """Have every error be a ConfigError that names the model. `what`: what raised it."""
    name = f"PREDICTOR_MODEL: {path!r}: "
    try:
        yield
    except ConfigError as error:  # which may have it: that of a process that runs the model
        raise ConfigError(name + str(error).removeprefix(name)) from error.__cause__
    except (Exception, SystemExit) as error:  # of the model, or of its types
        logger.exception("the model cannot be started")
        reason = f"{type(error).__name__}: {error}{_place(error)}"
        raise ConfigError(f"{name}{what}{reason}") from error
    finally:
        enable_logging()


async def start_model(path: str, model: Model) -> None:
    """Construct the model and warm it up. Raises ConfigError."""
    began = time.monotonic()
    with _explained(path, "starting it raised "):
        await model.start()
    logger.info("model %s ready after %.1f s", path, time.monotonic() - began)


def _find(path: str) -> Any:
    module_name, _, name = path.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts).strip("./")
        raise ConfigError(f"is a file; name its module: {dotted}:{name or 'predict'}")
    if not module_name or not name:
        raise ConfigError("must look like package.module:name")
    began = time.monotonic()
    target = module = _import(_MOVED.get(module_name, module_name))
    where = getattr(module, "__file__", None) or "a namespace package"
    logger.info("imported %s from %s in %.1f s", module_name, where, time.monotonic() - began)
    for part in name.split("."):
        if not hasattr(target, part):
            raise ConfigError(f"module {module_name!r} ({where}) has no {name!r}")
        target = getattr(target, part)
    if not callable(target) and not callable(getattr(target, "predict", None)):
        fix = "name a function, a class, or an object with a method predict"
        raise ConfigError(f"is {type(target).__name__}; {fix}")
    return target


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        fix = ""
        if isinstance(error, ModuleNotFoundError) and error.name:
            if f"{module_name}.".startswith(f"{error.name}."):
                places = ", ".join(dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path))
                fix = "start in its folder, or add that to PYTHONPATH"
                raise ConfigError(f"no module {error.name!r} in {places}; {fix}") from None
            fix = f"; install the package that has it into {sys.prefix}"
        kind, reason = type(error).__name__, f"{error}{_place(error)}"
        if isinstance(error, SyntaxError) and error.filename:
            reason = f"{error.msg} ({error.filename}, line {error.lineno})"
        raise ConfigError(f"importing {module_name!r} raised {kind}: {reason}{fix}") from error


def _place(error: BaseException) -> str:
    """The innermost frame outside of the import machinery: the line to fix."""
    ours = ("<frozen importlib", importlib.__file__, __file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(ours):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""
