"""Starts processes that have imported everything: most of a process's start is its imports.

A fault test starts many workers. This process imports what `arq` and `uvicorn` need, once, and
forks for each: the child is a process like any other, with its own signals, exit status and end.

Reads one JSON object a line: argv, env, cwd, log, exit; answers the child's pid. When a child ends,
its status is in the file `exit`.
"""

import gc
import json
import os
import random
import runpy
import selectors
import signal
import sys
from pathlib import Path
from typing import Any

#: What the commands and their server import late.
_IMPORTS = (
    "arq.cli",
    "fastapi_offline",
    "predictor.api.app",
    "predictor.api.protocol",
    "predictor.client.commands",
    "predictor.webhooks.deliverer",
    "predictor.worker",
    "pythonjsonlogger.json",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
)


def serve() -> dict[str, Any] | None:
    """Fork for each request until the input ends; answers, in a child, what it is to be."""
    for name in _IMPORTS:
        __import__(name)
    gc.freeze()  # or the first collection of each child would copy all that is imported
    exits: dict[int, Path] = {}
    wakeup, signaled = os.pipe()
    os.set_blocking(signaled, False)
    signal.set_wakeup_fd(signaled)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(wakeup, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == wakeup:
                os.read(wakeup, 4096)
                _reap(exits)
            elif not (line := sys.stdin.readline()):
                return None
            else:
                request = json.loads(line)
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return dict(request)
                exits[pid] = Path(request["exit"])
                print(pid, flush=True)


def _reap(exits: dict[int, Path]) -> None:
    while exits:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        path = exits.pop(pid)
        partial = path.with_suffix(".partial")
        partial.write_text(str(os.waitstatus_to_exitcode(status)))
        partial.rename(path)


def become(request: dict[str, Any]) -> None:
    """Be the command that was asked for."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(":")
    sys.argv = request["argv"]
    random.seed()
    if sys.argv[0] == "arq":
        from arq.cli import cli

        cli()
    elif sys.argv[:2] == ["python", "-m"]:
        del sys.argv[:2]
        runpy.run_module(sys.argv[0], run_name="__main__")
    else:
        from uvicorn.main import main

        main()


if __name__ == "__main__":
    if (asked := serve()) is not None:
        become(asked)
