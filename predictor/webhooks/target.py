"""Which URLs may be called. They are resolved when they are accepted, and for each attempt."""

import asyncio
import re
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import SOCK_STREAM, getaddrinfo

import httpx

from predictor.config import Network, host_name
from predictor.errors import WebhookRefused
from predictor.process import call_in_thread

Address = IPv4Address | IPv6Address
Allowed = Collection[str | Network]  # names of hosts, and networks

_LOOKUP = 3.0  # seconds for a DNS look-up
_MOST_THREADS = 500  # of the process; above, nothing is looked up: many already hang
_TEXT = re.compile(r"[!\"$-~]{1,2048}")  # visible ASCII without a fragment
#: IPv6 addresses that embed an IPv4 address: mapped ones, and those of NAT64.
_EMBEDDING = [ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")]
#: Not public, though Python says so: protocol assignments (Oracle's metadata is there), 6to4 (leads
#: to an IPv4 address), the address of the host of Azure's machines, multicast, and what is not in
#: 2000::/3, the only IPv6 addresses that are assigned to be public.
_PRIVATE = [
    *map(ip_network, ("192.0.0.0/24", "2002::/16", "192.88.99.0/24", "168.63.129.16/32")),
    *map(ip_network, ("224.0.0.0/4", "::/3", "4000::/2", "8000::/1")),
]


def parse_target(text: str) -> httpx.URL:
    """`text` in its canonical form, which is also what is requested. Raises WebhookRefused."""
    with suppress(httpx.InvalidURL, ValueError):
        given = httpx.URL(text)
        host = given.raw_host.decode("ascii")
        url = given.copy_with(host=str(_address(host) or host_name(host)))
        is_http = url.scheme in {"http", "https"} and not url.userinfo
        is_port = url.port is None or 0 < url.port < 65536
        if is_http and is_port and _TEXT.fullmatch(text) and _TEXT.fullmatch(str(url)):
            return url
    raise WebhookRefused(
        "Webhook-Url must be like https://host:port/path?query, without user, password and "
        "fragment, in at most 2048 visible ASCII characters."
    )


async def check_target(text: str, allowed: Allowed) -> str:
    """The URL to store. Raises WebhookRefused. Its name may be unknown for now: DNS can fail."""
    target = parse_target(text)
    await permitted_addresses(target, allowed)
    return str(target)


async def permitted_addresses(target: httpx.URL, allowed: Allowed) -> list[Address]:
    """The current addresses of `target`; none if its name is unknown.

    Raises WebhookRefused if one of them must not be called, or none could ever be.
    """
    host = target.raw_host.decode("ascii")
    addresses = await _look_up(host)
    if host in allowed:
        return addresses
    ipv4 = [IPv4Address(int(a) & 0xFFFFFFFF) if _is_in(a, _EMBEDDING) else a for a in addresses]
    networks = [each for each in allowed if not isinstance(each, str)]
    others = [each for each in ipv4 if not _is_in(each, networks)]
    if not all(each.is_global and not _is_in(each, _PRIVATE) for each in others):
        text = "Webhook-Url must lead to a public address, or to one in PREDICTOR_WEBHOOK_ALLOW."
        raise WebhookRefused(text)
    if target.scheme != "https" and (others or not (addresses or networks)):
        text = "Webhook-Url must begin with https://, or lead into PREDICTOR_WEBHOOK_ALLOW."
        raise WebhookRefused(text)
    return addresses


def _address(host: str) -> Address | None:
    """`host`, if it is an address; one with a zone (%eth0) is none."""
    with suppress(ValueError):
        return None if "%" in host else ip_address(host)
    return None


async def _look_up(host: str) -> list[Address]:
    if address := _address(host):
        return [address]
    # A thread of its own: in the loop's pool, name servers that do not answer would delay others.
    if threading.active_count() > _MOST_THREADS:
        return []
    with suppress(OSError, ValueError):  # TimeoutError is an OSError
        async with asyncio.timeout(_LOOKUP):
            found = await call_in_thread(lambda: getaddrinfo(host, None, type=SOCK_STREAM))
        return list(dict.fromkeys(ip_address(known[0]) for *_, known in found))
    return []


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
