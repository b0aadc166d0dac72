"""Who may send requests: names by their keys, to which hosts, and pages of other origins."""

from collections.abc import Awaitable
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor import errors
from predictor.api import headers as declared
from predictor.api.responses import error_response
from predictor.config import Config, entries
from predictor.prediction import owner_of

_CACHED = 256  # senders whose key was looked up
_HEALTH = ("/health/",)  # needs no key and any host: probes have neither
_PAGE = ("/page/",)  # and /: what they show, they ask for with a key
#: Paths, by how they begin, that need no key if PREDICTOR_PUBLIC has their name.
_PUBLIC = {"docs": ("/docs", "/openapi.json", "/static-offline-docs/"), "metrics": ("/metrics",)}
_OPERATOR = owner_of("operator")  # who may read the metrics if there are several names
_HOST_REFUSED = "Header Host has a value that is not served here (PREDICTOR_ALLOWED_HOSTS)."
#: What pages of other origins may send, and read.
_SENT = {str(field.alias) for kind in declared.RequestHeaders.__subclasses__()
         for field in kind.model_fields.values()}  # fmt: skip
_READ = {each.name for each in vars(declared).values() if isinstance(each, declared.Header)}


class Keys:
    """Keys by their SHA-256: the time of a look-up tells of a digest, which nobody can choose."""

    def __init__(self, text: str) -> None:
        """`text`: PREDICTOR_API_KEYS. Raises ConfigError if two names cannot be told apart."""
        self._owners: dict[bytes, tuple[bytes, str]] = {}
        names: dict[str, str] = {}
        for entry in entries(text):
            name, _, key = entry.partition(":")
            owner, hexadecimal = owner_of(name), key.removeprefix("sha256:")
            is_digest = key != hexadecimal
            digest = bytes.fromhex(hexadecimal) if is_digest else sha256(key.encode()).digest()
            if names.setdefault(owner, name) != name:
                problem = f"{name} and {names[owner]} would share their ids; rename one of them"
                raise errors.ConfigError(f"PREDICTOR_API_KEYS: {problem}")
            if self._owners.setdefault(digest, (digest, owner))[1] != owner:
                raise errors.ConfigError(f"PREDICTOR_API_KEYS: {name} has a key of another name")
        self.has_several_names = len(names) > 1
        self.owner = lru_cache(_CACHED)(self._owner)  # it compares what has the same keyed hash

    def _owner(self, *authorization: bytes) -> str:
        """What the ids of the sender begin with; empty unless there is one key, and it is known."""
        if len(authorization) != 1 or authorization[0][:7].lower() != b"bearer ":
            return ""
        digest = sha256(authorization[0][7:].strip()).digest()
        known, owner = self._owners.get(digest, (b"", ""))
        return owner if compare_digest(digest, known) else ""


class Gate:
    """Refuses requests to other hosts, or without a key; puts whose the key is into the state."""

    def __init__(self, app: ASGIApp, config: Config, keys: Keys) -> None:
        self._app, self._keys = app, keys if config.api_keys else None
        public = [path for part in entries(config.public) for path in _PUBLIC[part]]
        self._open = (*_HEALTH, *_PAGE, *public)
        self._hosts = entries(config.allowed_hosts.lower())

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan" and (error := self._refusal(scope)):
            return error_response(error.status, str(error))(scope, receive, send)
        return self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> errors.RequestError | None:
        """Why a request is refused. Its body is not read; what of it comes is dropped."""
        path, headers, owner = scope["path"], scope["headers"], ""
        if self._keys:
            owner = self._keys.owner(
                *[value for name, value in headers if name == b"authorization"]
            )
            scope["state"]["owner"] = owner  # of this request: each has a copy
        if owner and not self._hosts and not path.endswith("/metrics"):
            return None
        path = path.removeprefix(scope.get("root_path", ""))
        if self._hosts and not path.startswith(_HEALTH):
            hosts = [value for name, value in headers if name == b"host"]
            if len(hosts) != 1 or not self._serves(hosts[0].decode("latin-1").lower()):
                return errors.InvalidHeader(_HOST_REFUSED)
        if not self._keys or path == "/" or path.startswith(self._open):
            return None
        if owner and path == "/metrics" and self._keys.has_several_names and owner != _OPERATOR:
            return errors.Forbidden("Of several names, only operator may read the metrics.")
        return None if owner else errors.Unauthorized()

    def _serves(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        host = name if port.isdecimal() else host
        return any(
            host == each or (each[0] == "*" and host.endswith(each[1:])) for each in self._hosts
        )


class Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("DELETE", "GET", "HEAD", "POST"),
            allow_headers={"Authorization", "X-Request-ID", *_SENT},
            expose_headers=sorted({"X-Request-ID", *_READ}),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        return error_response(response.status_code, f"{bytes(response.body).decode()}.", kept)
