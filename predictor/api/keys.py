"""The keys of the API: to whom each belongs."""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from predictor.config import entries
from predictor.errors import ConfigError
from predictor.prediction import owner_of


class Keys:
    """Keys by their SHA-256: the time of a look-up tells of a digest, which nobody can choose."""

    def __init__(self, text: str) -> None:
        """`text`: PREDICTOR_API_KEYS. Raises ConfigError if two names cannot be told apart."""
        self._owners: dict[bytes, tuple[bytes, str]] = {}
        names: dict[str, str] = {}
        for entry in entries(text):
            name, _, key = entry.partition(":")
            owner, hexadecimal = owner_of(name), key.removeprefix("sha256:")
            digest = bytes.fromhex(hexadecimal) if key != hexadecimal else _digest(key.encode())
            if names.setdefault(owner, name) != name:
                problem = f"{name} and {names[owner]} would share their ids; rename one of them"
                raise ConfigError(f"PREDICTOR_API_KEYS: {problem}")
            if self._owners.setdefault(digest, (digest, owner))[1] != owner:
                raise ConfigError(f"PREDICTOR_API_KEYS: {name} has a key of another name")
        self.are_shared = len(names) > 1  # by several names, who must not learn of each other

    def owner(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """What the ids of the sender of a request begin with; None without a key that is known."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or given[0][:7].lower() != b"bearer ":
            return None
        digest = _digest(given[0][7:].strip(b" "))
        known, owner = self._owners.get(digest, (b"", None))
        return owner if hmac.compare_digest(digest, known) else None


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
