"""The Lua scripts, one atomic step each; a file's header says what it guarantees."""

from importlib import resources


def script(name: str, *, even_if_full: bool = False) -> str:
    """The text of `name`.lua.

    `even_if_full`: run it when the store's memory is full, which Redis 7 and newer can. For steps
    that have to happen so that memory becomes free.
    """
    text = resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return f"#!lua flags=allow-oom\n{text}" if even_if_full else text
