"""Rules that are kept by a check, not by care."""

import ast
import re
import subprocess
import sys

import pytest
from arq import constants as arq

from predictor import errors
from predictor.config import Config
from predictor.store import keys
from tests.processes import ROOT

MODULES = sorted((ROOT / "predictor").rglob("*.py"))


def _subclasses(kind: type[errors.PredictorError]) -> list[type[errors.PredictorError]]:
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [kind, *(deeper for each in below for deeper in _subclasses(each))]


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= 40
    ]
    assert not long


def test_modules_and_the_package_stay_small() -> None:
    lines = {path: path.read_text().count("\n") for path in MODULES}
    assert not [path for path, count in lines.items() if count > 400]
    names = {path.name for path in (ROOT / "predictor").iterdir()} - {"__pycache__", "py.typed"}
    assert len(names) <= 16
    scripts = (ROOT / "predictor").rglob("*.lua")
    assert sum(lines.values()) + sum(path.read_text().count("\n") for path in scripts) <= 10755


def test_the_page_is_light() -> None:
    files = (ROOT / "predictor" / "api" / "static").iterdir()
    assert sum(path.stat().st_size for path in files) <= 60_000


@pytest.mark.parametrize("kind", _subclasses(errors.PredictorError))
def test_every_error_has_a_message_and_a_status(kind: type[errors.PredictorError]) -> None:
    assert str(kind()) == kind.__doc__
    assert 400 <= kind.status < 600


def test_the_store_can_name_every_failure() -> None:
    known = set(errors.BY_CODE.values())
    assert known == set(_subclasses(errors.PredictionError))
    assert len({kind.code for kind in known}) == len(known)


@pytest.mark.parametrize("name", Config.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    variable = f"PREDICTOR_{name.upper()}"
    default = Config.model_fields[name].default
    example = (ROOT / ".env.example").read_text()
    assert re.search(rf"^#? ?{variable}=", example, re.MULTILINE)
    if default is not None:
        assert re.search(rf"^#? ?{variable}={re.escape(str(default))}$", example, re.MULTILINE)
    assert f"`{variable}`" in (ROOT / "README.md").read_text()


def test_nothing_unpickles_or_evaluates() -> None:
    for path in MODULES:
        assert not re.search(r"(?<!\.)\b(pickle|marshal|eval|exec)\b\s*[.(]", path.read_text()), (
            path
        )


def test_no_file_names_a_package_registry() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    hosts = ["pypi" + ".org", "files.python" + "hosted"]
    for name in files:
        text = (ROOT / name).read_text(errors="replace")
        assert not [host for host in hosts if host in text], name


def test_every_script_says_what_it_guarantees() -> None:
    for path in (ROOT / "predictor" / "store").rglob("*.lua"):
        header = path.read_text().partition("\nlocal")[0]
        assert header.startswith(f"-- {path.stem}: ")
        assert "-- Guarantees: " in header


def test_arq_s_keys_are_arq_s() -> None:
    assert arq.default_queue_name == keys.QUEUE
    assert arq.job_key_prefix == keys.JOB
    assert arq.in_progress_key_prefix == keys.IN_PROGRESS
    assert arq.retry_key_prefix == keys.TRIES
    assert arq.result_key_prefix == keys.RESULT
    assert f"{arq.default_queue_name}{arq.health_check_key_suffix}:" == keys.HEALTH


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("main", {"arq", "httpx", "tqdm"}),
        ("worker.worker", {"fastapi", "httpx", "starlette", "uvicorn"}),
        ("store.heartbeat", {"arq", "httpx", "pydantic_core", "uvicorn"}),
        ("__main__", {"fastapi", "httpx", "redis", "uvicorn"}),
        ("client", {"arq", "fastapi", "predictor.config", "redis", "uvicorn"}),
        ("webhooks.deliverer", {"arq", "fastapi", "rich", "uvicorn"}),
        ("supervisor.guardian", {"asyncio", "pydantic_core"}),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, without: set[str]) -> None:
    """It is to start at once, and to need little memory."""
    program = f"import predictor.{module}, sys; print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not without & set(imported)
