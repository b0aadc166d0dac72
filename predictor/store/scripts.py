"""The Lua scripts, one atomic step each; a file's header says what it guarantees."""

from importlib import resources


def script(name: str) -> str:
    """The text of `name`.lua."""
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
