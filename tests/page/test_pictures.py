"""The pictures of the README can be made again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.page.conftest import CHROMIUM, MISSING
from tests.processes import ROOT, free_port


@pytest.mark.skipif(not CHROMIUM, reason=MISSING)
@pytest.mark.timeout(180)
def test_the_pictures_are_made_from_a_running_service(tmp_path: Path) -> None:
    options = ("--seconds", "3", "--port", str(free_port()), "--to", str(tmp_path))
    subprocess.run([sys.executable, "-m", "tests.pictures", *options], cwd=ROOT, check=True)
    for name in ("light", "dark", "phone"):
        assert 10_000 < len((tmp_path / f"{name}.webp").read_bytes()) < 100_000, name
    drawn = (tmp_path / "terminal.svg").read_text()
    assert "queued" in drawn
    assert "url(http" not in drawn, "nothing comes from elsewhere"
