"""Requests that /openapi.json allows, and others, as schemathesis makes them of it.

More of them, and with other types:
pytest tests/api/test_schemathesis.py --examples 300 --examples-model predictor.mock:predict
"""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import BIN, ROOT, Processes


@pytest.mark.timeout(0)
def test_every_response_is_as_described(
    processes: Processes, request: pytest.FixtureRequest
) -> None:
    from tests.api.fuzz_checks import REPLACED  # with schemathesis, which takes long

    option: Callable[[str], Any] = request.config.getoption
    secret = "whsec_" + "QUJD" * 11
    settings = {"mock_delay": 0, "webhook_secrets": secret, "model": option("--examples-model")}
    api = processes.api("--no-access-log", **settings)
    processes.worker(**settings)
    replaced = ",".join(check.__name__ for check in REPLACED)
    command = [
        *(str(BIN / "schemathesis"), "run", f"http://127.0.0.1:{api.port}/openapi.json"),
        *("--max-examples", str(option("--examples")), "--seed", str(option("--examples-seed"))),
        *("--exclude-checks", replaced, "--continue-on-failure", "--no-shrink"),
        *("--generation-database", "none", "--request-timeout", "90", "--no-color"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.api.fuzz_checks", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, check=False, env=os.environ | hooks, capture_output=True, text=True
    )
    print(result.stdout[-20_000:])
    assert result.returncode == 0, result.stderr
    assert api.process.is_running
    assert "Traceback" not in api.process.output
