"""The user of the store that README shows. With `--least-rights`, all processes are that user."""

import re
from typing import Any

from tests.processes import ROOT


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
