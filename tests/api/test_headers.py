import pytest
from starlette.datastructures import Headers

from predictor.api.headers import EventsHeaders, PredictHeaders, Preferences, ReadHeaders
from predictor.errors import InvalidHeader
from tests.processes import Api


def _headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in pairs])


def _read(*pairs: tuple[str, str]) -> PredictHeaders:
    return PredictHeaders.read(_headers(*pairs))


NONE = Preferences()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["wait=5"], Preferences(wait=5)),
        (["WAIT = 5"], Preferences(wait=5)),
        (['wait="5"'], Preferences(wait=5)),
        (["wait=5; foo=bar"], Preferences(wait=5)),
        (["respond-async, wait=5"], Preferences(respond_async=True, wait=5)),
        (["respond-async", "wait=5"], Preferences(respond_async=True, wait=5)),
        (["wait=5, wait=50"], Preferences(wait=5)),
        (["wait=5", "wait=50"], Preferences(wait=5)),
        (["wait=100"], Preferences(wait=60)),
        (["wait=" + "9" * 500], Preferences(wait=60)),
        (["wait=0"], Preferences(wait=0)),
        (["return=minimal, handling=strict"], Preferences(is_minimal=True)),
        (['wait=5, Return = "minimal"'], Preferences(wait=5, is_minimal=True)),
        (["return=representation, return=minimal"], NONE),
        (["return"], NONE),
        (["minimal"], NONE),
        (['foo="a, wait=5"'], NONE),
        ([""], NONE),
        ([",;=,"], NONE),
        (["wait"], NONE),
        (["wait="], NONE),
        (["wait=-1"], NONE),
        (["wait=1e308"], NONE),
        (["wait=0x10"], NONE),
        (["wait=1.5"], NONE),
        (["wait=٣".encode().decode("latin-1")], NONE),
        (["wait=" + "9" * 10_000], NONE),
        (['"' * 10_000], NONE),
        (['"' + '\\"' * 450 + ", wait=5"], NONE),
        (['"\\"' * 30_000], NONE),
        (["x=1"] * 1000 + ["wait=5"], NONE),
    ],
)
def test_preferences(values: list[str], expected: Preferences) -> None:
    headers = _headers(*(("prefer", value) for value in values))
    assert Preferences.parse(ReadHeaders.read(headers).prefer) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (" 2S ", 2), ("720h", 2592000)],
)
def test_cancel_after(value: str, seconds: float) -> None:
    assert _read(("cancel-after", value)).cancel_after == seconds


NONSENSE = ["", " ", "-1", "1e308", "0x10", "ü", "0s", "30", "s", "721h", "1s 2", "9" * 10_000]


@pytest.mark.parametrize("value", NONSENSE)
def test_an_invalid_cancel_after_is_rejected(value: str) -> None:
    with pytest.raises(InvalidHeader, match="Cancel-After must be a time like 30s"):
        _read(("cancel-after", value))


@pytest.mark.parametrize("value", ["", " ", '""', "ü", "a\tb", "x" * 256, "x" * 10_000])
def test_an_invalid_idempotency_key_is_rejected(value: str) -> None:
    with pytest.raises(InvalidHeader, match="Idempotency-Key must be 1 to 255 visible ASCII"):
        _read(("idempotency-key", value))


def test_an_idempotency_key_may_be_quoted() -> None:
    """The draft says so, and most clients do not know."""
    bare = _read(("idempotency-key", "a b"))
    quoted = _read(("idempotency-key", '"a b"'))
    assert bare.idempotency_key == quoted.idempotency_key
    assert bare.idempotency_key != _read(("idempotency-key", "a")).idempotency_key


@pytest.mark.parametrize("name", ["cancel-after", "idempotency-key", "webhook-url"])
def test_a_repeated_header_is_rejected(name: str) -> None:
    with pytest.raises(InvalidHeader, match="is given twice"):
        _read((name, "1s"), (name, "1s"))


@pytest.mark.parametrize(
    ("mode", "prefer", "is_queued", "wait"),
    [
        (None, "", False, 300),
        ("false", "respond-async", False, 300),
        (None, "respond-async", True, 0),
        (None, "respond-async, wait=5", True, 5),
        ("true", "wait=5", True, 0),
        ("false", "wait=5", True, 5),
        (None, "wait=0", True, 0),
    ],
)
def test_async_mode_overrides_prefer(
    mode: str | None, prefer: str, is_queued: bool, wait: float
) -> None:
    pairs = [("prefer", prefer)] + ([("async-mode", mode)] if mode else [])
    read = _read(*pairs)
    assert (read.is_queued, read.wait(300)) == (is_queued, wait)


@pytest.mark.parametrize("value", ["-1", "1e308", "0x10", "x" * 10_000, "1-2-3", "ü", "1-", "٣-٣"])
def test_an_invalid_event_id_is_rejected(value: str) -> None:
    raw = value.encode().decode("latin-1")
    with pytest.raises(InvalidHeader, match="Last-Event-ID must be an id that this stream sent"):
        EventsHeaders.read(_headers(("last-event-id", raw)))


def test_an_empty_event_id_means_the_beginning() -> None:
    assert EventsHeaders.read(_headers(("last-event-id", ""))).last_event_id == ""
    assert EventsHeaders.read(_headers(("last-event-id", "12"))).last_event_id == "12"


NAMES = [
    "Prefer",
    "Cancel-After",
    "Idempotency-Key",
    "Webhook-Url",
    "Last-Event-ID",
    "X-Request-ID",
]
VALUES = [b"", b"1e308", b"-1", b"0x10", b"x" * 10_000, "ü".encode(), b"\xff\xfe", b"a\tb", b"%00"]


@pytest.mark.parametrize("name", NAMES)
def test_no_header_value_causes_more_than_a_400(served: Api, name: str) -> None:
    id_ = served.submit("x")
    served.outcome(id_)
    for value in [*VALUES, None]:
        given = [(name.encode(), value)] if value is not None else [(name.encode(), b"1")] * 2
        for method, path in (
            *(("POST", "/predict"), ("GET", f"/predict/{id_}"), ("GET", f"/predict/{id_}/status")),
            *(("GET", f"/predict/{id_}/events"), ("DELETE", "/predict/unknown")),
        ):
            headers = [*given, (b"Async-Mode", b"true"), (b"Content-Type", b"application/json")]
            answer = served.client.request(method, path, headers=headers, content=b'{"input":"x"}')
            assert answer.status_code in {200, 202, 400, 404}, (method, path, value)
            if answer.status_code == 400:
                assert answer.json()["error"].startswith((f"Header {name} ", "Webhook-Url "))
            assert answer.headers["x-request-id"]
