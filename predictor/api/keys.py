"""Who may send requests: names by their keys, and hosts."""

import hmac
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from predictor import errors
from predictor.api.responses import error_response
from predictor.config import Config, entries
from predictor.prediction import owner_of

_HEALTH = ("/health/",)  # needs no key and any host: probes have neither
#: Paths, by how they begin, that need no key if PREDICTOR_PUBLIC has their name.
_PUBLIC = {"docs": ("/docs", "/openapi.json", "/static-offline-docs/"), "metrics": ("/metrics",)}
_HOST_REFUSED = "Header Host has a value that is not served here (PREDICTOR_ALLOWED_HOSTS)."


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
                raise errors.ConfigError(f"PREDICTOR_API_KEYS: {problem}")
            if self._owners.setdefault(digest, (digest, owner))[1] != owner:
                raise errors.ConfigError(f"PREDICTOR_API_KEYS: {name} has a key of another name")
        self.has_several_names = len(names) > 1

    def owner(self, authorization: list[bytes]) -> str | None:
        """What the ids of the sender begin with; None unless there is one key, and it is known."""
        if len(authorization) != 1 or authorization[0][:7].lower() != b"bearer ":
            return None
        digest = _digest(authorization[0][7:].strip(b" "))
        known, owner = self._owners.get(digest, (b"", None))
        return owner if hmac.compare_digest(digest, known) else None


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


class Gate:
    """Refuses requests to other hosts, or without a key; puts whose the key is into the state."""

    def __init__(self, app: ASGIApp, config: Config, keys: Keys) -> None:
        self._app, self._keys = app, keys if config.api_keys else None
        self._open = _HEALTH + tuple(
            path for part in entries(config.public) for path in _PUBLIC[part]
        )
        hosts = [host.lower().encode() for host in entries(config.allowed_hosts)]
        self._hosts = {host for host in hosts if host[:1] != b"*"}
        self._domains = tuple(host[1:] for host in hosts if host[:1] == b"*")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (error := self._refusal(scope)):
            await error_response(error.status, str(error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> errors.RequestError | None:
        """Why a request is refused. Its body is not read; what of it comes is dropped."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if (self._hosts or self._domains) and not path.startswith(_HEALTH):
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not self._serves(hosts[0].lower()):
                return errors.InvalidHeader(_HOST_REFUSED)
        if not self._keys:
            return None
        owner = self._keys.owner(given)
        scope["state"] = {**scope["state"], "owner": owner or ""}
        if path.startswith(self._open):
            return None
        if owner and path == "/metrics" and self._keys.has_several_names:
            text = "With several names, only the key of the name operator may read the metrics."
            return None if owner == owner_of("operator") else errors.Forbidden(text)
        return None if owner else errors.Unauthorized()

    def _serves(self, host: bytes) -> bool:
        name, _, port = host.rpartition(b":")
        host = name if port.isdigit() else host
        return host in self._hosts or host.endswith(self._domains)
