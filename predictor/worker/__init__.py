"""The worker process, which `arq predictor.worker.Settings` starts. Knows no HTTP."""

import asyncio
import sys
from typing import Any

import uvloop

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.process import ends_if_misconfigured, start_logging
from predictor.worker.worker import Worker, is_alive


def __getattr__(name: str) -> Any:
    """`Settings`, made when arq asks for it: importing this module reads no environment."""
    if name != "Settings":
        raise AttributeError(name)
    with ends_if_misconfigured():
        if "--watch" in sys.argv:
            raise ConfigError(
                "arq's --watch does not load changed code; instead, run: "
                "watchfiles 'arq predictor.worker.Settings' FOLDER"
            )
        config = Config()
        if "--check" in sys.argv:  # not arq's own, which knows no socket
            sys.exit(None if is_alive(config.store_url) else "no worker is known to be alive here")
        start_logging(config, prints=True)
        settings = Worker(config).settings()
    asyncio.set_event_loop(uvloop.new_event_loop())  # arq takes the current one
    return settings
