"""Which URLs may be called. They are resolved when they are accepted, and for each attempt."""

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

#: Seconds for a DNS look-up.
_LOOKUP = 3.0

#: Threads of the process above which nothing is looked up: many already hang.
_MOST_THREADS = 500

#: IPv6 addresses that embed an IPv4 address: mapped ones, and those of NAT64.
_EMBED_IPV4 = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))

#: The only IPv6 addresses that are assigned to be public.
_UNICAST = ip_network("2000::/3")

#: Not public, though Python says so: protocol assignments (Oracle's metadata is there), 6to4 (leads
#: to an IPv4 address), and the address of the host of Azure's machines.
_PRIVATE = [
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "168.63.129.16/32")
]


def parse_target(text: str) -> httpx.URL:
    """`text` in its canonical form, which is also what is requested. Raises WebhookRefused."""
    try:
        return _parse(text)
    except (httpx.InvalidURL, ValueError):
        raise WebhookRefused(
            "Webhook-Url must be like https://host:port/path?query, without user, password and "
            f"fragment, in at most {_LONGEST} visible ASCII characters."
        ) from None


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
    if host in allowed.hosts:
        return addresses
    others = [each for each in map(_embedded, addresses) if not allowed.contains(each)]
    if not all(map(_is_public, others)):
        raise WebhookRefused(
            "Webhook-Url must lead to a public address, or to one in PREDICTOR_WEBHOOK_ALLOW."
        )
    may_be_allowed = addresses or allowed.networks
    if target.scheme != "https" and (others or not may_be_allowed):
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
    """`host`, if it is an address; one with a zone (%eth0) is none."""
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


def _embedded(address: Address) -> Address:
    if any(address in network for network in _EMBED_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and (address.version == 4 or address in _UNICAST)
        and not any(address in network for network in _PRIVATE)
    )
