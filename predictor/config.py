"""Every setting: its environment variable, type, default and description; read once."""

import base64
import contextlib
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic_settings as settings
from pydantic import AfterValidator, Field, HttpUrl, PlainSerializer, SecretStr, ValidationError

from predictor.errors import ConfigError

PREFIX = "PREDICTOR_"

_Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
_UpToADay = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
_Secret = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)]


def entries(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [entry for part in text.split(",") if (entry := part.strip())]


def _signing_secrets(secrets: SecretStr) -> SecretStr:
    for secret in entries(secrets.get_secret_value()):
        encoded = secret.removeprefix("whsec_")
        with contextlib.suppress(ValueError):
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
            if encoded != secret and 24 <= len(key) <= 64:
                continue
        raise ValueError(
            "must be whsec_ and the base64 of 24 to 64 random bytes, comma-separated; "
            'make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return secrets


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

    host: str = "127.0.0.1"
    """Address that the api listens on."""
    port: int = Field(8080, ge=0, le=65535)
    """Port of the api; 0 takes a free one."""
    url: HttpUrl | None = None
    """The api that `predictor predict`, `status` and `cancel` call. Unset: the one at
    PREDICTOR_HOST and PREDICTOR_PORT."""
    redis_url: _Secret | None = None
    """Store to use: redis://, rediss://, unix:// or redis+sentinel://. Unset: `predictor` starts an
    embedded one; a process started by hand uses redis://localhost:6379."""
    wait_replicas: int = Field(0, ge=0, le=100)
    """Replicas that must have a prediction before it is accepted."""
    data_dir: Path = Path(".predictor")
    """Where the embedded store keeps its files."""
    model: str = "predictor.mock:predict"
    """Import path of the model, package.module:name."""
    mock_delay: _UpToADay = 1.0
    """Seconds that the mock model takes."""
    workers: int = Field(1, ge=1, le=1024)
    """Worker processes that `predictor` starts."""
    concurrency: int = Field(10, ge=1, le=10000)
    """Predictions at once in one process."""
    timeout: _Seconds = 300
    """Seconds that one prediction may run."""
    max_tries: int = Field(3, ge=1, le=1000)
    """Runs before a prediction that kills its worker is given up."""
    lease: _Seconds = Field(10, ge=0.3)
    """Seconds until the predictions of a dead worker run again."""
    drain: _UpToADay = 20
    """Seconds that running predictions get to finish when a process is stopped."""
    queue_ttl: _Seconds = 604800
    """Seconds that a prediction may wait in the queue before it fails as expired."""
    queue_limit: int = Field(10000, ge=0)
    """Waiting predictions above which new ones get 503; 0: no limit."""
    result_ttl: _Seconds = 3600
    """Seconds that a result is kept."""
    max_result: int = Field(16777216, ge=1, le=2**28)
    """Largest result, or piece of output, in bytes."""
    max_body: int = Field(1048576, ge=1)
    """Largest request body, in bytes."""
    webhook_secrets: Annotated[_Secret, AfterValidator(_signing_secrets)] = SecretStr("")
    """Secrets, whsec_…, comma-separated; each signs every webhook."""
    webhook_allow: str = ""
    """Hosts and networks, comma-separated, that webhooks may call by plain http and where they
    are not public."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged: debug, info, warning, error."""
    log_format: Literal["console", "json"] = "console"
    """`json` writes one object a line, for machines."""

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

    @property
    def store_url(self) -> str:
        """`redis_url`, or the default of a process that was started by hand."""
        return self.redis_url.get_secret_value() if self.redis_url else "redis://localhost:6379"

    @property
    def signing_secrets(self) -> list[str]:
        return entries(self.webhook_secrets.get_secret_value())

    @property
    def local_host(self) -> str:
        """Where to connect on this machine to what listens on `host`."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104

    @property
    def local_url(self) -> str:
        """The api of these settings, from this machine."""
        host = f"[{self.local_host}]" if ":" in self.local_host else self.local_host
        return f"http://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables."""
        values = self.model_dump(exclude_none=True)
        return {PREFIX + name.upper(): str(value) for name, value in values.items()}

    def with_redis_url(self, url: str) -> Self:
        return self.model_copy(update={"redis_url": SecretStr(url)})


def misspelled() -> list[tuple[str, str]]:
    """Variables of the environment and .env that are no settings, and the settings meant."""
    sources = settings.EnvSettingsSource(Config), settings.DotEnvSettingsSource(Config)
    variables = {name.upper() for source in sources for name in source.env_vars}
    given = {name.removeprefix(PREFIX) for name in variables if name.startswith(PREFIX)}
    known = {name.upper() for name in Config.model_fields}
    # A setting that is given itself was not meant; nor is it by what started this process.
    return [
        (PREFIX + name, PREFIX + meant)
        for name in sorted(given - known)
        for meant in difflib.get_close_matches(name, known, 1)
        if meant not in given
    ]
