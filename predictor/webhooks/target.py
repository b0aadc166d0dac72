"""Where a webhook may go. It is looked up when it is accepted, and again for each attempt."""

import asyncio
import re
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import SOCK_STREAM, getaddrinfo

import httpx

from predictor.errors import WebhookRefused
from predictor.process import call_in_thread
from predictor.webhooks.allowlist import Allowed, host_name

Address = IPv4Address | IPv6Address

_LONGEST = 2048
_VISIBLE = re.compile(r"[!-~]+")

#: Seconds that the name service has.
_LOOKUP = 3.0

#: Threads of a process above which no name is looked up: too many hang already.
_MOST_THREADS = 500

#: IPv6 addresses that stand for the IPv4 address at their end: mapped ones, and those of NAT64.
_STANDS_FOR_IPV4 = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))

#: The only IPv6 addresses that are given out to be public.
_UNICAST = ip_network("2000::/3")

#: Some more that Python takes for public: those of protocols (Oracle's metadata is there), 6to4's
#: (they lead to an IPv4 address), and the one at which Azure's machines find their host.
_PRIVATE = [
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "168.63.129.16/32")
]


def parse_target(text: str) -> httpx.URL:
    """`text` in its one spelling: what is looked at here is what is sent. Raises WebhookRefused."""
    try:
        return _parse(text)
    except (httpx.InvalidURL, ValueError):
        raise WebhookRefused(
            "Webhook-Url must be like https://host:port/path?query, without user, password and "
            f"fragment, in at most {_LONGEST} visible ASCII characters."
        ) from None


async def check_target(text: str, allowed: Allowed) -> str:
    """The URL to store. Raises WebhookRefused. A name may be unknown just now: DNS can be away."""
    target = parse_target(text)
    await permitted_addresses(target, allowed)
    return str(target)


async def permitted_addresses(target: httpx.URL, allowed: Allowed) -> list[Address]:
    """The addresses that `target` has now; none, when its name is unknown.

    Raises WebhookRefused if one of them may not be called: a name that mixes them is up to no good.
    """
    host = target.raw_host.decode("ascii")
    addresses = await _look_up(host)
    for address in map(_called, addresses):
        if host in allowed.hosts or allowed.contains(address):
            continue
        if not _is_public(address):
            raise WebhookRefused(
                "Webhook-Url must lead to a public address, or to one in PREDICTOR_WEBHOOK_ALLOW."
            )
        if target.scheme != "https":
            raise WebhookRefused(
                "Webhook-Url must begin with https://, or lead into PREDICTOR_WEBHOOK_ALLOW."
            )
    return addresses


def _parse(text: str) -> httpx.URL:
    if len(text) > _LONGEST or not _VISIBLE.fullmatch(text):
        raise ValueError
    given = httpx.URL(text)
    raw = given.raw_host.decode("ascii")
    url = given.copy_with(host=str(_address(raw) or host_name(raw)))
    if url.scheme not in {"http", "https"} or url.userinfo or "#" in text:
        raise ValueError
    if len(str(url)) > _LONGEST or (url.port is not None and not 0 < url.port < 65536):
        raise ValueError
    return url


def _address(host: str) -> Address | None:
    """What `host` is if it is no name. One of an interface (with a %) is nothing."""
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


async def _look_up(host: str) -> list[Address]:
    if address := _address(host):
        return [address]
    # A thread of its own: in the loop's pool, name servers that do not answer would delay others.
    if threading.active_count() > _MOST_THREADS:
        return []
    try:
        async with asyncio.timeout(_LOOKUP):
            found = await call_in_thread(lambda: getaddrinfo(host, None, type=SOCK_STREAM))
    except (OSError, ValueError):  # TimeoutError is an OSError
        return []
    return list(dict.fromkeys(ip_address(known[0]) for *_, known in found))


def _called(address: Address) -> Address:
    if any(address in network for network in _STANDS_FOR_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and (address.version == 4 or address in _UNICAST)
        and not any(address in network for network in _PRIVATE)
    )
