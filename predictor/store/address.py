"""The address of a store that Sentinels know; redis-py reads those of the other kinds itself."""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_SCHEME = "redis+sentinel"
_PORT = 26379


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A primary by its name among Sentinels."""

    hosts: list[tuple[str, int]]
    name: str
    #: database, user and password of the primary, as redis-py calls them
    options: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """What `redis+sentinel://[user:password@]host[:port][,…]/service[/database]` says.

        None for a URL of another kind. Raises ValueError.
        """
        parts = urlsplit(url)
        if parts.scheme != _SCHEME:
            return None
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        name, _, database = parts.path.strip("/").partition("/")
        options: dict[str, Any] = {"db": int(database or 0)}
        if user:
            options["username"] = unquote(user)
        if password:
            options["password"] = unquote(password)
        each = [urlsplit(f"//{host}") for host in hosts.split(",")]
        if not name or not all(host.hostname and host.port != 0 for host in each):
            raise ValueError("a host and a service must be named")
        return cls([(str(host.hostname), host.port or _PORT) for host in each], name, options)
