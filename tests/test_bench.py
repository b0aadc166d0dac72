"""The benchmark, without the peers: whether it runs, not what it measures."""

import pytest

from tests.processes import Processes


@pytest.mark.timeout(170)
def test_the_benchmark_prints_its_tables(command: Processes) -> None:
    names = ("Predictor", "floor: FastAPI")
    options = ("--rounds", "1", "--seconds", "0.1", "--no-growth", "--only", *names)
    bench = command.start("python", "-m", "tests.bench", *options)
    assert bench.wait(150) == 0, bench.output
    for name in names:
        assert f"| {name} | " in bench.output
    assert "of the time was stolen" in bench.output
