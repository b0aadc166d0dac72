"""Every setting: its environment variable, type, default and description; read once."""

import base64
import contextlib
import difflib
import re
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic_settings as settings
from pydantic import AfterValidator, Field, HttpUrl, ValidationError

from predictor.errors import ConfigError

PREFIX = "PREDICTOR_"
Network = IPv4Network | IPv6Network

_Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
_UpToADay = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]


def entries(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [entry for part in text.split(",") if (entry := part.strip())]


def _each(is_right: Callable[[str], object], rule: str = "must have an entry") -> AfterValidator:
    """Refuses a comma-separated list without entries, or with one that is not right.

    `is_right` may raise ValueError, too.
    """

    def check(text: str) -> str:
        if text and not (entries(text) and all(map(is_right, entries(text)))):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _is_signing_secret(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    with contextlib.suppress(ValueError):
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return encoded != secret and 24 <= len(key) <= 64
    return False


def _is_host(host: str) -> bool:
    with contextlib.suppress(UnicodeError):
        return bool(host.encode("idna"))  # as a look-up does
    return False


_HOST = _each(_is_host, "must be a host name or an IP address")
_SECRETS = _each(
    _is_signing_secret,
    "must be whsec_ and the base64 of 24 to 64 random bytes, comma-separated; "
    'make one with: echo "whsec_$(openssl rand -base64 32)"',
)
_KEYS = _each(
    re.compile(r"[\w.-]{1,64}:(sha256:[0-9a-f]{64}|[\w.~+/=-]{16,255})", re.ASCII).fullmatch,
    "must be name:key or name:sha256:digest, comma-separated; a name is 1 to 64 of "
    "A-Z a-z 0-9 _ . -, a key 16 to 255 of A-Z a-z 0-9 - . _ ~ + / =; make one with: "
    "openssl rand -hex 32",
)
_PUBLIC = _each(re.compile("docs|metrics").fullmatch, "must be of docs, metrics")
_ORIGINS = _each(
    re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+").fullmatch,
    "must be like https://example.com, in lower case and without a path",
)
_HOSTS = _each(
    re.compile(r"(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]").fullmatch,
    "must be like example.com or *.example.com, without a port",
)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
#: Most resolvers take what ends in a number for an address: 127.1, 0x7f.1, 2130706433.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def host_name(text: str) -> str:
    """A host name in its canonical form: lower case, IDNA, no trailing dot. Raises ValueError."""
    given = text.lower().removesuffix(".")
    with contextlib.suppress(UnicodeError):
        name = given.encode("idna").decode("ascii")
        # Python's IDNA is older than the web's: it maps ß to ss, which is another host.
        is_exact = name == given or name.encode().decode("idna") == given
        if is_exact and len(name) < 254 and _NAME.fullmatch(name) and not _NUMBER.fullmatch(name):
            return name
    raise ValueError(
        f"{text!r} cannot be used; possible are a host (hooks.example.com), an address (127.0.0.1, "
        "::1) and a network (10.0.0.0/8), comma-separated"
    )


def _host_or_network(text: str) -> str | Network:
    """A host name, or a network; an address is a network of one. Raises ValueError."""
    with contextlib.suppress(ValueError):
        return ip_network(text.strip("[]"))
    return host_name(text)


def _check_rate(rate: float) -> float:
    if 0 < rate < 1e-6:
        raise ValueError("must be 0, or at least 0.000001")
    return rate


class Config(settings.BaseSettings):
    """The settings of one process. Raises ConfigError, which names the variables to fix."""

    model_config = settings.SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    host: Annotated[str, _HOST] = "127.0.0.1"
    """Address that the API listens on."""
    port: int = Field(8080, ge=0, le=65535)
    """Port of the API; 0: a free one."""
    url: HttpUrl | None = None
    """URL of the API for the client commands. Unset: PREDICTOR_HOST and PREDICTOR_PORT."""
    redis_url: str | None = Field(None, repr=False)
    """URL of the store: redis://, rediss://, unix:// or redis+sentinel://. Unset: `predictor`
    starts an embedded store; other processes use redis://localhost:6379."""
    wait_replicas: int = Field(0, ge=0, le=100)
    """Replicas that must confirm a prediction before it is accepted."""
    data_dir: Path = Path(".predictor")
    """Folder of the embedded store."""
    model: str = Field("predictor.mock:predict", max_length=1000)
    """Import path of the model, package.module:name."""
    model_version: str = Field("", max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    """Version of the model, any text; the status of a prediction shows it."""
    sync: Literal["api", "queue"] = "api"
    """Where sync predictions run: api, or queue: on the workers; then the API loads no weights."""
    mock_delay: _UpToADay = 1.0
    """Seconds that the mock model takes."""
    api_processes: int = Field(1, ge=1, le=1024)
    """API processes that `predictor` starts, on one port."""
    workers: int = Field(1, ge=1, le=1024)
    """Worker processes that `predictor` starts."""
    concurrency: int = Field(10, ge=1, le=10000)
    """Concurrent predictions of one process."""
    runs_in: Literal["thread", "process"] = "thread"
    """Where predictions run: thread, or process: in processes of their own."""
    spare: int = Field(1, ge=0, le=100)
    """Processes with the model that are kept ready to replace one that ends."""
    runs_per_process: int = Field(0, ge=0)
    """Runs after which a process with the model is replaced; 0: never."""
    timeout: _Seconds = 300
    """Seconds that a run may take."""
    max_tries: int = Field(3, ge=1, le=1000)
    """Runs before a prediction that kills its worker is given up."""
    lease: _Seconds = Field(10, ge=0.3)
    """Seconds until the predictions of a dead worker are run again."""
    drain: _UpToADay = 20
    """Seconds that running predictions have to finish when a process is stopped."""
    queue_ttl: _Seconds = 604800
    """Seconds from its request after which a prediction that does not run expires."""
    queue_limit: int = Field(10000, ge=0)
    """Length of the queue above which new predictions are refused with 503; 0: unlimited."""
    result_ttl: _Seconds = Field(3600, ge=0.1)
    """Seconds that a result is kept."""
    max_result: int = Field(16777216, ge=1, le=2**28)
    """Largest result, or piece of output, in bytes; at most 268435456."""
    max_body: int = Field(10485760, ge=1, le=2**32)
    """Largest request body, in bytes; at most 4294967296."""
    webhook_secrets: Annotated[str, _SECRETS] = Field("", repr=False)
    """Secrets that sign webhooks, whsec_…, comma-separated."""
    webhook_allow: Annotated[str, _each(_host_or_network)] = ""
    """Hosts and networks that webhooks may call by plain http or at private addresses,
    comma-separated."""
    api_key: str = Field("", repr=False, pattern=r"^[A-Za-z0-9._~+/=-]*$")
    """Key that the client commands send."""
    api_keys: Annotated[str, _KEYS] = Field("", repr=False)
    """Keys of the API, name:key or name:sha256:digest, comma-separated. Unset: it needs none."""
    public: Annotated[str, _PUBLIC] = ""
    """What needs no key though there are keys, comma-separated: docs, metrics."""
    rate: Annotated[float, AfterValidator(_check_rate)] = Field(
        0, ge=0, le=10**6, allow_inf_nan=False
    )
    """Predictions a second that a name may request; beyond, 429; 0: any number."""
    burst: int = Field(10, ge=1, le=10**6)
    """Predictions that a name may request at once before PREDICTOR_RATE counts."""
    open: int = Field(0, ge=0)
    """Predictions of a name that may be queued or running at a time; beyond, 429; 0: any number."""
    cors_origins: Annotated[str, _ORIGINS] = ""
    """Origins whose pages may call the API, https://…, comma-separated, or *. Unset: none."""
    allowed_hosts: Annotated[str, _HOSTS] = ""
    """Values of the header Host that are served, comma-separated; *.example.com: of a domain.
    Unset: any."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged: debug, info, warning or error."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """console, json: one object a line, or auto: console on a terminal, else json."""

    def __init__(self, **values: Any) -> None:
        if ConfigError.__doc__ is None:
            raise ConfigError("PYTHONOPTIMIZE: must be less than 2: docstrings are error messages")
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = []  # without the values, which may be secrets
            for problem in error.errors(include_url=False):
                name = str(problem["loc"][0]).upper()
                problems.append(f"{PREFIX}{name}: {problem['msg'].removeprefix('Value error, ')}")
            raise ConfigError("; ".join(problems)) from None
        except (OSError, UnicodeError) as error:
            raise ConfigError(f".env cannot be read: {error}") from None

    @property
    def slots(self) -> int:
        """How many predictions one process runs at once: 1 if each needs a copy of the weights."""
        is_default = "concurrency" not in self.model_fields_set
        return 1 if is_default and self.runs_in == "process" else self.concurrency

    @property
    def store_url(self) -> str:
        return self.redis_url or "redis://localhost:6379"

    @property
    def signing_secrets(self) -> list[str]:
        return entries(self.webhook_secrets)

    @cached_property
    def allowed_targets(self) -> frozenset[str | Network]:
        return frozenset(map(_host_or_network, entries(self.webhook_allow)))

    @property
    def local_url(self) -> str:
        """Where a server on `host` can be reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The settings that are set, as environment variables."""
        values = self.model_dump(exclude_none=True, exclude_unset=True)
        return {PREFIX + name.upper(): str(value) for name, value in values.items()}


def misspelled() -> list[tuple[str, str]]:
    """Unknown variables with our prefix in the environment and .env, and the settings meant."""
    sources = settings.EnvSettingsSource(Config), settings.DotEnvSettingsSource(Config)
    variables = {name.upper() for source in sources for name in source.env_vars}
    given = {name.removeprefix(PREFIX) for name in variables if name.startswith(PREFIX)}
    known = {name.upper() for name in Config.model_fields}
    return [
        (PREFIX + name, PREFIX + meant)
        for name in sorted(given - known)
        for meant in difflib.get_close_matches(name, known, 1)
        if meant not in given
    ]
