"""The Lua scripts, one atomic step each; a file's header says what it guarantees."""

import re
from functools import cache
from importlib import resources

from predictor.store import keys

#: The names of the keys, as the scripts use them.
_KEYS = "\n".join(
    f"local {name} = '{value}'"
    for name, value in vars(keys).items()
    if name.isupper() and isinstance(value, str)
)

_USES = re.compile(r"^-- Uses (.*)$", re.MULTILINE)


def script(name: str, *, even_if_full: bool = False) -> str:
    """The text of `name`.lua, behind the texts of the parts that it uses.

    `even_if_full`: run it when the store's memory is full, which Redis 7 and newer can. For steps
    that have to happen so that memory becomes free.
    """
    text = _text(name)
    uses = _USES.search(text)
    parts = [_text(part) for part in uses[1].split(", ")] if uses else []
    whole = "\n".join([_KEYS, *parts, text])
    return f"#!lua flags=allow-oom\n{whole}" if even_if_full else whole


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
