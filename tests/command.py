"""The `predictor` command as a test sees it: started, with its processes."""

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.processes import UNMEASURED, Api, Process, Processes, eventually, free_port

#: Every process of a command costs a second to start if it is measured: a few tests are enough.
MEASURED = {name: os.environ.get(name, "") for name in UNMEASURED}


def running(folder: Path) -> list[str]:
    """What runs in this folder: every process of a command does."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").resolve().is_relative_to(folder):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def children(process: Process, what: str) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split(maxsplit=2) for line in listed]
    direct = {row[0] for row in rows if row[1] == str(process.pid)}
    return [
        int(row[0])
        for row in rows
        if len(row) > 2 and what in row[2] and (row[0] in direct or row[1] in direct)
    ]


def serve(command: Processes, *options: str, **settings: Any) -> Api:
    port = free_port()
    settings = {"mock_delay": 0.05, "drain": 5} | UNMEASURED | settings
    process = command.start("predictor", *options, port=port, **settings)
    eventually(
        lambda: "Predictor serves" in process.output or not process.is_running,
        "the welcome",
        30,
    )
    assert process.is_running, process.output
    return command.client(port, process)
