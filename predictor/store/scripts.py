"""The Lua scripts, one atomic step each; a file's header says what it guarantees.

Scripts may use the functions of `lua/shared`, the names of keys.py, and the results of predictions
that no worker ends. Only what a script uses goes with it: each call makes all of that anew.
"""

import asyncio
import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from predictor import errors
from predictor.store import keys

_PARTS = ("basics", "clock", "deadline", "events", "quota", "settle", "suspects")
_UNRUN = {kind.code.upper(): kind for kind in (errors.Canceled, errors.Expired, errors.TimedOut)}
_FUNCTION = re.compile(r"^local (function (\w+)\(.*?^end)$", re.MULTILINE | re.DOTALL)
#: Calls in one pipeline, and pipelines at a time. With more, api, store and worker would take turns
#: with whole crowds of predictions, instead of working at the same time.
_AT_ONCE, _PIPELINES = 16, 2
_LARGE = 65536  # bytes
_WORD = re.compile(r"\w+")
#: Scripts that run though the store's memory is full: what they write is small, or takes the place
#: of an input, so that what is queued can end.
_THOUGH_FULL = {"cancel", "claim", "erase", "expire", "finish", "renew", "requeue"}


class Scripts:
    """The scripts, run by a client for a thread of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._script = cache(lambda name: client.register_script(script(name)))

    def run(self, name: str, *args: Any) -> Any:
        """What `name`.lua returns."""
        return self._script(name)(args=args)


class AsyncScripts(Scripts):
    """The scripts, run by an asyncio client. Calls that come together share a pipeline."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._calls: list[_Call] = []
        self._pipelines: set[asyncio.Task[None]] = set()

    async def run(self, name: str, *args: Any, is_large: bool = False) -> Any:
        """`is_large`: the reply may be, as arguments may: others need not wait for either."""
        if is_large or sum(len(each) for each in args if isinstance(each, bytes)) > _LARGE:
            return await self._script(name)(args=args)
        loop = asyncio.get_running_loop()
        if not self._calls:
            loop.call_soon(self._send)
        call = _Call(self._script(name), args, loop.create_future())
        self._calls.append(call)
        try:
            return await call.reply
        except NoScriptError:
            return await call.script(args=args)  # which loads it

    def _send(self) -> None:
        while self._calls and len(self._pipelines) < _PIPELINES:
            calls, self._calls = self._calls[:_AT_ONCE], self._calls[_AT_ONCE:]
            task = asyncio.create_task(self._execute(calls))
            self._pipelines.add(task)
            task.add_done_callback(self._pipelines.discard)
            task.add_done_callback(lambda _: self._send())

    async def _execute(self, calls: "list[_Call]") -> None:
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for call in calls:
                    # `evalsha` would be two more calls for each.
                    pipe.execute_command("EVALSHA", call.script.sha, 0, *call.args)
                replies = await pipe.execute(raise_on_error=False)
        except Exception as error:  # those that wait have waited as long
            calls, self._calls = calls + self._calls, []
            replies = [error] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if call.reply.done():
                continue  # its caller was canceled
            if isinstance(reply, Exception):
                call.reply.set_exception(reply)
                call.reply.exception()  # or asyncio logs it if its caller is canceled now
            else:
                call.reply.set_result(reply)


class _Call(NamedTuple):
    script: Any  # redis-py's
    args: tuple[Any, ...]
    reply: asyncio.Future[Any]


def script(name: str) -> str:
    """The text of `name`.lua, behind the functions that it uses; names of keys.py are replaced."""
    text = _text(name)
    shared = [_text(f"shared/{part}") for part in _PARTS]
    functions = {f[2]: f[1] for text in shared for f in _FUNCTION.finditer(text)}
    used: dict[str, str] = {}
    words = set(_WORD.findall(text))
    while new := {name: body for name, body in functions.items() if name in words - used.keys()}:
        used |= new
        words.update(*(_WORD.findall(body) for body in new.values()))
    known = {name: repr(value) for name, value in vars(keys).items() if name in words}
    if unrun := _UNRUN.keys() & words:
        from predictor.store.wire import encode_ended  # the heartbeat does without pydantic

        # Of predictions that no worker ends: scripts fill in id, times and tries.
        known |= {name: repr(encode_ended("", _UNRUN[name]()).decode()) for name in unrun}
    forward = [f"local {', '.join(used)}"] if used else []
    whole = "\n".join([*forward, *used.values(), text])
    # Not as variables: each that a function uses would take memory in each call.
    whole = _WORD.sub(lambda word: known.get(word[0], word[0]), whole)
    return f"#!lua flags=allow-oom\n{whole}" if name in _THOUGH_FULL else whole


@cache
def _text(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
