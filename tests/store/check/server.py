"""A real server whose time is a number of the history's own: it moves when the history says so."""

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.store import scripts

_HERE = Path(__file__).parent
_BEGINNING_US = 1_790_000_000_000_000

#: What a script names its arguments: `local a, b, c = unpack(ARGV)`, or `= ARGV[1], …`.
_ARGUMENTS = re.compile(r"^local ([\w\s,]+?) =\s+(?:unpack\(ARGV\)|ARGV\[1\])", re.MULTILINE)


def names() -> list[str]:
    """The scripts, without the parts that are no scripts of their own."""
    files = [Path(file.name) for file in (resources.files("predictor.store") / "lua").iterdir()]
    texts = {file.stem: scripts._text(file.stem) for file in files if file.suffix == ".lua"}
    return sorted(name for name, text in texts.items() if _ARGUMENTS.search(text))


@cache
def parameters(name: str) -> list[str]:
    """What the script names its first arguments."""
    found = _ARGUMENTS.search(scripts._text(name))
    assert found, f"{name}.lua does not say what its arguments are"
    return re.split(r",\s*", found[1])


class Call:
    """One run of a script: what it was given, and what it answered."""

    def __init__(self, name: str, args: Sequence[Any], reply: Any) -> None:
        self.name = name
        self.reply = reply
        given = [each.decode() if isinstance(each, bytes) else str(each) for each in args]
        wanted = parameters(name)
        self._named = dict(zip(wanted, given, strict=False))
        #: those behind the named ones
        self.rest = given[len(wanted) :]

    def __getattr__(self, name: str) -> str:
        return self._named[name]

    def get(self, name: str) -> str:
        """An argument, if it has one of that name."""
        return self._named.get(name, "")

    def __str__(self) -> str:
        shown = [value[:60] for value in (*self._named.values(), *self.rest)]
        return f"{self.name}({', '.join(shown)}) → {_plain(self.reply)}"


class Server:
    """Runs scripts at the history's time."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client: Any = client  # redis-py says that each answer may have to be awaited
        #: hears of each that ran
        self.on_call: Callable[[Call], None] = lambda _: None
        self._shim = (_HERE / "server.lua").read_text()
        self._shas: dict[str, str] = {}
        self._state = client.script_load((_HERE / "state.lua").read_text())
        #: µs since 1970, as the server's clock says
        self.clock_us = _BEGINNING_US
        #: µs that have passed for whoever does not look at that clock
        self.passed_us = 0
        #: µs that have passed, and by which the clock was set forward
        self.elapsed_us = 0
        #: how often a call is not made, or its reply is lost
        self.lost = 0.0
        self.random = random.Random()

    @property
    def now(self) -> float:
        """As the scripts know it: ms since 1970."""
        return self.clock_us // 1_000_000 * 1000 + self.clock_us % 1_000_000 / 1000

    @property
    def now_ms(self) -> int:
        """As times to live know it."""
        return self.clock_us // 1000

    @property
    def elapsed(self) -> float:
        """Ms that have passed, or seem to have: this never goes back."""
        return self.elapsed_us / 1000

    def advance(self, us: int) -> None:
        """Let time pass."""
        self.passed_us += us
        self.elapsed_us += us
        self.clock_us += us

    def set_clock(self, by_us: int) -> None:
        """Set the clock forward, or back."""
        self.clock_us += by_us
        self.elapsed_us += max(0, by_us)

    def monotonic(self) -> float:
        """Seconds that have passed, as `time.monotonic` says."""
        return self.passed_us / 1_000_000

    def time(self) -> float:
        """Seconds since 1970, as `time.time` says."""
        return self.clock_us / 1_000_000

    def state(self) -> dict[str, tuple[Any, int]]:
        """All that the store holds: key → value, ms that are left (-1: no end)."""
        found: dict[str, tuple[Any, int]] = json.loads(
            self._client.evalsha(self._state, 0, self.now_ms)
        )
        return found

    def get(self, key: str) -> str:
        """The value of a key."""
        return str(self._client.get(key).decode())

    def events(self, id_: str) -> list[tuple[str, str]]:
        """What happened to a prediction: kind and data of each event."""
        script = self._shim + scripts.script("events")
        found = self._client.eval(script, 0, id_, 0, 10**6, self.clock_us)
        events = (each.decode().partition(" ") for each in found)
        return [(kind, data) for kind, _, data in events]

    def zadd(self, key: str, scores: dict[str, float], *, xx: bool) -> None:
        """As redis-py's."""
        self._client.zadd(key, scores, xx=xx)

    def flush(self) -> None:
        """Remove all."""
        self._client.flushdb()

    def call(self, name: str, args: Sequence[Any]) -> Any:
        """Run a script."""
        if self._lose():
            raise RedisConnectionError("the call was lost")
        if name not in self._shas:
            text = self._shim + scripts.script(name).removeprefix("#!lua flags=allow-oom\n")
            self._shas[name] = self._client.script_load(text)
        reply = self._client.evalsha(self._shas[name], 0, *args, self.clock_us)
        self.on_call(Call(name, args, reply))
        if self._lose():
            raise RedisConnectionError("the reply was lost")
        return reply

    def take_over(self, user: object) -> None:
        """Have all scripts that an object has registered run here."""
        for name, value in vars(user).items():
            if isinstance(value, scripts.Scripts):
                is_awaited = isinstance(value, scripts.AsyncScripts)
                setattr(user, name, _Scripts(self, is_awaited=is_awaited))

    def _lose(self) -> bool:
        return self.random.random() < self.lost


class _Scripts(scripts.Scripts):
    """Scripts that run at the history's time."""

    def __init__(self, server: Server, *, is_awaited: bool) -> None:
        super().__init__(None)
        self._server = server
        self._is_awaited = is_awaited

    def run(self, name: str, *args: Any, is_large: bool = False) -> Any:
        return self._run(name, args) if self._is_awaited else self._server.call(name, args)

    async def _run(self, name: str, args: Sequence[Any]) -> Any:
        return self._server.call(name, args)


def _plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_plain(each) for each in reply]
    return reply[:60].decode() if isinstance(reply, bytes) else reply


#: The scripts that must look whether the clock was set back.
_CLOCKED = {"claim", "deliver", "record", "renew", "submit"}


def uses_clock(name: str) -> bool:
    return name in _CLOCKED
