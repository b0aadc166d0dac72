"""Loads the model that PREDICTOR_MODEL names, or explains in one line why it cannot be."""

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from predictor.errors import ConfigError
from predictor.model.model import Model

#: Paths of models that have moved.
_MOVED = {"predictor.mock": "predictor.model.mock"}


def load_model(path: str, max_result: int = sys.maxsize) -> Model:
    """The model at `path`: "package.module:name", where the name may have dots.

    `max_result`: bytes of a result, or of a piece of output, at most. Raises ConfigError.
    """
    try:
        return _load(path, max_result)
    except ConfigError as error:
        raise ConfigError(f"PREDICTOR_MODEL: {path!r}: {error}") from error.__cause__


def _load(path: str, max_result: int) -> Model:
    module_name, _, name = path.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts).strip("./")
        raise ConfigError(f"is a file; name its module: {dotted}:{name or 'predict'}")
    if not module_name or not name:
        raise ConfigError("must look like package.module:name")
    target = module = _import(_MOVED.get(module_name, module_name))
    for part in name.split("."):
        if not hasattr(target, part):
            where = getattr(module, "__file__", None) or "a namespace package"
            raise ConfigError(f"module {module_name!r} ({where}) has no {name!r}")
        target = getattr(target, part)
    fix = "name a function or a callable object"
    if inspect.isclass(target):
        fix += f": write model = {target.__name__}() in the module, and name {module_name}:model"
        raise ConfigError(f"is the class {target.__name__}; {fix}")
    if not callable(target):
        raise ConfigError(f"is {type(target).__name__}; {fix}")
    try:
        return Model(target, max_result)
    except TypeError as error:
        raise ConfigError(f"cannot be called with one text: {error}") from None


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
