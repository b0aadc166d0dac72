"""Loads the model that PREDICTOR_MODEL names, or says in one line why that is impossible."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from predictor.errors import ModelNotLoadable
from predictor.model.model import Model, takes_run

#: Paths of models that have moved.
_MOVED = {"predictor.mock": "predictor.model.mock"}


def load_model(path: str, max_result: int = sys.maxsize) -> Model:
    """The model at `path`: "package.module:name", where the name may have dots.

    `max_result`: limit of a result, or of a piece of output, in bytes.
    Raises ModelNotLoadable.
    """
    try:
        return Model(_find(path), max_result)
    except ModelNotLoadable as error:
        raise ModelNotLoadable(f"PREDICTOR_MODEL: {path!r}: {error}") from error.__cause__


def _find(path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts).strip("./")
        raise ModelNotLoadable(f"is a file; name its module: {dotted}:{name or 'predict'}")
    if not module_name or not name:
        raise ModelNotLoadable("must look like package.module:name")
    target = module = _import(_MOVED.get(module_name, module_name))
    for part in name.split("."):
        if not hasattr(target, part):
            where = getattr(module, "__file__", None) or "a namespace package"
            raise ModelNotLoadable(f"module {module_name!r} ({where}) has no {name!r}")
        target = getattr(target, part)
    _check_call(target, module_name)
    return target  # type: ignore[no-any-return]


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            places = ", ".join(dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path))
            raise ModelNotLoadable(
                f"no module {error.name!r} in {places}; start in its folder, or add that to "
                "PYTHONPATH"
            ) from None
        fix = f"; install the package that has it into {sys.prefix}"
        raise _import_failed(module_name, error, fix) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(module_name, error) from error


def _import_failed(module_name: str, error: BaseException, fix: str = "") -> ModelNotLoadable:
    reason = str(error)
    # The innermost frame outside of the import machinery is the line to mend.
    ours = ("<frozen importlib", importlib.__file__, __file__)
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        reason, where = error.msg, f" ({error.filename}, line {error.lineno})"
    return ModelNotLoadable(
        f"importing {module_name!r} raised {type(error).__name__}: {reason}{where}{fix}"
    )


def _check_call(target: Any, module_name: str) -> None:
    if inspect.isclass(target):
        raise ModelNotLoadable(
            f"is the class {target.__name__}; name a function or a callable object: write "
            f"model = {target.__name__}() in the module, and name {module_name}:model"
        )
    if not callable(target):
        kind = type(target).__name__
        raise ModelNotLoadable(f"is {kind}; name a function or a callable object")
    try:
        inspect.signature(target).bind("", *([None] if takes_run(target) else []))
    except TypeError as error:
        raise ModelNotLoadable(f"cannot be called with one text: {error}") from None
    except ValueError:
        pass  # some built-in callables have no signature to look at
