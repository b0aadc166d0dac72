"""What a server must be like to keep the promise that nothing accepted is lost."""

from typing import Any

from predictor.errors import StoreUnavailable, UnsuitableStore

#: Share of its memory above which a server takes some predictions, and not others.
_FULL = 0.95


def check_server(info: dict[str, Any]) -> None:
    """Raise UnsuitableStore if INFO shows a server that would lose predictions."""
    if version(info) < (6, 2):  # Valkey says what Redis it equals
        known = info.get("redis_version")
        raise UnsuitableStore(f"The store is version {known}; it must be 6.2 or newer.")
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        raise UnsuitableStore(
            f"The store would evict predictions: its maxmemory-policy is {policy}; set it to "
            "noeviction."
        )


def check_room(info: dict[str, Any]) -> None:
    """Raise StoreUnavailable if INFO shows a server whose memory is all but full."""
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    if most and used > _FULL * most:
        raise StoreUnavailable(f"The store's memory is full ({used} of {most} bytes are used).")


def version(info: dict[str, Any]) -> tuple[int, int]:
    """Major and minor version of the Redis that this server is, or equals."""
    major, minor, *_ = [*str(info.get("redis_version", "0.0")).split("."), "0"]
    return int(major), int(minor)
