import re
import threading

import pytest

from predictor.config import Config
from predictor.errors import ConfigError, WebhookRefused
from predictor.webhooks import target
from predictor.webhooks.target import Allowed, check_target, parse_target, permitted_addresses

Names = dict[str, list[str]]


def _allowed(text: str) -> Allowed:
    return Config(webhook_allow=text).allowed_targets


def test_allow_list_is_normalized() -> None:
    allowed = _allowed(" Hooks.Example., bücher.example,my_service,10.0.0.0/8, ::1,[fd00::1],")
    hosts = {each for each in allowed if isinstance(each, str)}
    assert hosts == {"hooks.example", "xn--bcher-kva.example", "my_service"}
    assert {*map(str, allowed)} - hosts == {"10.0.0.0/8", "::1/128", "fd00::1/128"}
    assert not _allowed("")


NOT_ALLOWABLE = "*.a.example http://a a:80 a/b 10.0.0.1/8 10.0.0.300 127.1 faß.example a\0b -a a..b"
NOT_ALLOWABLE += f" me@a %00 {'x' * 64}"


@pytest.mark.parametrize("entry", [*NOT_ALLOWABLE.split(), "a b", "a\nb"])
def test_invalid_allow_list_entries_are_named(entry: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(repr(entry))} .* possible are ") as caught:
        _allowed(f"localhost,{entry}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://hooks.example", "https://hooks.example"),
        ("HTTPS://Hooks.Example.:443/a/../b?c=%2F", "https://hooks.example/b?c=%2F"),
        ("http://hooks.example:80/", "http://hooks.example/"),
        ("http://my_service:8080/x", "http://my_service:8080/x"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://[2606:4700:0:0::1]:8443/", "https://[2606:4700::1]:8443/"),
        ('https://a.example/"<>', "https://a.example/%22%3C%3E"),
    ],
)
def test_urls_are_normalized(text: str, url: str) -> None:
    parsed = parse_target(text)
    assert str(parsed) == url
    assert parse_target(url) == parsed


NOT_A_URL = r"""
a.example //a.example /a x:y https:a ftp://a.example file:///etc/passwd
https:// https:///a https://:443 https://a:0 https://a:65536 https://a:-1 https://a:b https://a:1:2
https://u@a https://u:p@a https://a\@b https://a\b https://a# https://a/#b
https://bücher.example https://a/é https://a%2eb https://a%00 https://a..b https://.a https://-a
https://a- https://* https://::1 https://[::1 https://[a] https://[v1.a] https://[::1]a
"""
NOT_A_SPELLING_OF_AN_ADDRESS = """
https://2130706433 https://0x7f.1 https://0x7f000001 https://127.1 https://0 https://127.0.0.1.
https://0177.0.0.1 https://127.0.0.256 https://a.1 https://a.0x
https://[::1%25lo] https://[fe80::1%25eth0] https://[fe80::1%eth0]
"""
TOO_LONG = [f"https://{'a' * 64}", f"https://{'a.' * 127}a", f"https://a/{'a' * 2039}"]
TOO_LONG += [f"https://a{'/b/..' * 500}", "https://a/" + '"' * 700]
NOT_VISIBLE = [
    "",
    " https://a",
    "https://a/ b",
    "https://a\r\nb: c",
    "https://a\0",
    "https://a\x7f",
]


@pytest.mark.parametrize(
    "text", [*NOT_A_URL.split(), *NOT_A_SPELLING_OF_AN_ADDRESS.split(), *TOO_LONG, *NOT_VISIBLE]
)
def test_invalid_urls_are_refused(text: str) -> None:
    with pytest.raises(WebhookRefused, match=r"^Webhook-Url must be like [!-~ ]*$"):
        parse_target(text)


PUBLIC = """
8.8.8.8 172.32.0.1 192.169.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""
NOT_PUBLIC = """
127.0.0.1 127.8.9.1 0.0.0.0 0.1.2.3 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1
100.100.100.200 192.0.0.192 192.0.2.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
192.88.99.1 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::127.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1 fc00::1 fd00:ec2::254 fe80::1
fec0::1 ff02::1 4000::1
"""


@pytest.mark.parametrize("address", PUBLIC.split())
async def test_public_addresses_are_allowed(names: Names, address: str) -> None:
    names["a.example"] = [address]
    assert await check_target("https://a.example", ()) == "https://a.example"
    with pytest.raises(WebhookRefused, match="must begin with https://"):
        await check_target("http://a.example", ())
    assert await check_target(_url(address), ())


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
async def test_other_addresses_are_refused(names: Names, address: str) -> None:
    names["a.example"] = [f"8.8.8.8 {address} 2606:4700::1111"]
    strangers = _allowed("b.example,example,a.example.b,9.9.9.9")
    for url in ("https://a.example", _url(address)):
        with pytest.raises(WebhookRefused, match="must lead to a public address"):
            await check_target(url, strangers)
    assert await check_target("http://a.example", _allowed("A.Example"))


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("127.0.0.1", "127.0.0.1"),
        ("fd00::/8", "fd12::1"),
        ("::1", "::1"),
    ],
)
async def test_allowed_networks(names: Names, network: str, address: str) -> None:
    names["a.example"] = [address]
    allowed = _allowed(network)
    assert await check_target("http://a.example/", allowed) == "http://a.example/"
    names["a.example"] = [f"{address} 8.8.8.8"]
    assert await check_target("https://a.example/", allowed)
    with pytest.raises(WebhookRefused, match="must begin with https://"):
        await check_target("http://a.example/", allowed)
    names["a.example"] = [f"{address} 10.255.255.255 127.0.0.2 fe80::1"]
    with pytest.raises(WebhookRefused, match="must lead to a public address"):
        await check_target("https://a.example/", allowed)


async def test_addresses_with_a_zone_are_refused(names: Names) -> None:
    names["a.example"] = ["fe80::1%eth0"]
    with pytest.raises(WebhookRefused, match="must lead to a public address"):
        await check_target("https://a.example", ())


async def test_names_of_this_machine() -> None:
    for name in ("localhost", "LOCALHOST.", "[::1]", "127.0.0.1"):
        with pytest.raises(WebhookRefused):
            await check_target(f"https://{name}:8080/", ())
    assert await check_target("http://LocalHost.:8080/", _allowed("localhost"))


async def test_unresolved_names(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await check_target("https://a.example", ()) == "https://a.example"
    assert await permitted_addresses(parse_target("https://a.example"), ()) == []
    for allow in ("a.example", "b.example,10.0.0.0/8"):
        assert await check_target("http://a.example", _allowed(allow))
    for allow in ("", "b.example"):
        with pytest.raises(WebhookRefused, match="must begin with https://"):
            await check_target("http://a.example", _allowed(allow))

    hanging = threading.Event()

    def says_nothing(*_: object, **__: object) -> None:
        hanging.wait()

    monkeypatch.setattr(target, "_LOOKUP", 0.01)
    monkeypatch.setattr(target, "getaddrinfo", says_nothing)
    for _ in range(100):
        assert await check_target("https://a.example", ()) == "https://a.example"
    hanging.set()


def _url(address: str) -> str:
    return f"https://[{address}]" if ":" in address else f"https://{address}"
