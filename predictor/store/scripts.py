"""The Lua scripts, one atomic step each; a file's header says what it guarantees.

Scripts may use the functions of `lua/shared` and the names of keys.py. Only what a script uses goes
with it: each call makes all of that anew.
"""

import re
from functools import cache
from importlib import resources

from predictor.store import keys

_SHARED = ("basics", "clock", "deadline", "announce", "settle", "suspects")
_FUNCTION = re.compile(r"^local (function (\w+)\(.*?^end)$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"\w+")
_NAMES = {name for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}


def script(name: str, *, allow_oom: bool = False) -> str:
    """The text of `name`.lua, behind the functions and names that it uses.

    `allow_oom`: run it when the store's memory is full, which Redis 7 and newer can. For steps
    that have to happen so that memory becomes free.
    """
    text = _text(name)
    parts = "\n".join(_text(f"shared/{part}") for part in _SHARED)
    functions = {found[2]: found[1] for found in _FUNCTION.finditer(parts)}
    used: dict[str, str] = {}
    words = set(_WORD.findall(text))
    while new := {name: body for name, body in functions.items() if name in words - used.keys()}:
        used |= new
        words.update(*(_WORD.findall(body) for body in new.values()))
    names = [
        f"local {key} = {value!r}" for key, value in vars(keys).items() if key in words & _NAMES
    ]
    known = [f"local {', '.join(used)}"] if used else []
    whole = "\n".join([*names, *known, *used.values(), text])
    return f"#!lua flags=allow-oom\n{whole}" if allow_oom else whole


@cache
def _text(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
