"""PREDICTOR_WEBHOOK_ALLOW: hosts and networks."""

import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, Self

from predictor.config import entries
from predictor.errors import ConfigError

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
#: Most resolvers take what ends in a number for an address: 127.1, 0x7f.1, 2130706433.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

Network = IPv4Network | IPv6Network


class Allowed(NamedTuple):
    """Exact host names, and networks; an address is a network of one."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a comma-separated list. Raises ConfigError."""
        hosts, networks = set[str](), list[Network]()
        try:
            for entry in entries(text):
                with suppress(ValueError):
                    networks.append(ip_network(entry.strip("[]")))
                    continue
                hosts.add(host_name(entry))
        except ValueError as error:
            raise ConfigError(f"PREDICTOR_WEBHOOK_ALLOW: {error}") from None
        return cls(frozenset(hosts), tuple(networks))


def host_name(text: str) -> str:
    """A host name in its canonical form: lower case, IDNA, no trailing dot. Raises ValueError."""
    given = text.lower().removesuffix(".")
    with suppress(UnicodeError):
        name = given.encode("idna").decode("ascii")
        # Python's IDNA is older than the web's: it maps ß to ss, which is another host.
        is_exact = name == given or name.encode().decode("idna") == given
        if is_exact and len(name) < 254 and _NAME.fullmatch(name) and not _NUMBER.fullmatch(name):
            return name
    raise ValueError(
        f"{text!r} cannot be used; possible are a host (hooks.example.com), an address (127.0.0.1, "
        "::1) and a network (10.0.0.0/8), comma-separated"
    )
