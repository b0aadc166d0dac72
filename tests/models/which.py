"""Says which process it runs in, and is told when to end."""

import os
import time
from pathlib import Path


def predict(name: str, until: str = "") -> int:
    """`until`: a file without which it does not end; who has started is in `until`.started."""
    if until:
        with Path(f"{until}.started").open("a") as started:
            started.write(f"{name} {os.getpid()}\n")
        while not Path(until).exists():
            time.sleep(0.01)
    return os.getpid()
