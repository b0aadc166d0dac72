"""Every setting: its environment variable, type, default and one sentence; read once."""

import base64
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from predictor.errors import ConfigError

PREFIX = "PREDICTOR_"

Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
LogLevel = Literal["debug", "info", "warning", "error"]


class Config(BaseSettings):
    """The settings of one process, read once when it starts.

    Raises ConfigError, naming the variable, when one cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field("127.0.0.1", description="Address that the api listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the api; 0 takes a free one.")
    url: HttpUrl | None = Field(
        default=None,
        description="The api that `predictor predict`, `status` and `cancel` ask. Unset: the one "
        "at PREDICTOR_HOST and PREDICTOR_PORT.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Store to use: redis://, rediss://, unix:// or redis+sentinel://. Unset: "
        "`predictor` starts an embedded one; a process started by hand looks at "
        "redis://localhost:6379.",
    )
    wait_replicas: int = Field(
        0, ge=0, le=100, description="Replicas that must have a prediction before it is accepted."
    )
    data_dir: Path = Field(
        Path(".predictor"), description="Where the embedded store keeps its files."
    )
    model: str = Field(
        "predictor.mock:predict", description="Import path of the model, package.module:name."
    )
    mock_delay: float = Field(
        1.0, ge=0, le=86400, allow_inf_nan=False, description="Seconds that the mock model takes."
    )
    workers: int = Field(1, ge=1, le=1024, description="Worker processes that `predictor` starts.")
    concurrency: int = Field(10, ge=1, le=10000, description="Predictions at once in one process.")
    timeout: Seconds = Field(300, description="Seconds that one prediction may run.")
    max_tries: int = Field(
        3, ge=1, le=1000, description="Runs before a prediction that kills its worker is given up."
    )
    lease: Seconds = Field(
        10, ge=0.3, description="Seconds until the predictions of a dead worker run again."
    )
    drain: float = Field(
        20,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="Seconds that running predictions get to finish when a process is stopped.",
    )
    queue_ttl: Seconds = Field(
        604800,
        description="Seconds that a prediction may wait in the queue before it fails as expired.",
    )
    queue_limit: int = Field(
        10000, ge=0, description="Waiting predictions above which new ones get 503; 0: no limit."
    )
    result_ttl: Seconds = Field(3600, description="Seconds that a result is kept.")
    max_result: int = Field(
        16777216, ge=1, le=2**28, description="Largest result, or piece of output, in bytes."
    )
    max_body: int = Field(1048576, ge=1, description="Largest request body, in bytes.")
    webhook_secrets: SecretStr = Field(
        SecretStr(""), description="Secrets, whsec_…, comma-separated; each signs every webhook."
    )
    webhook_allow: str = Field(
        "",
        description="Hosts and networks, comma-separated, that webhooks may call by plain http and "
        "where they are not public.",
    )
    log_level: LogLevel = Field(
        "info", description="What is worth a line: debug, info, warning, error."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="`json` writes one object a line, for machines."
    )

    def __init__(self, **values: Any) -> None:
        if ConfigError.__doc__ is None:
            raise ConfigError("PYTHONOPTIMIZE: must be less than 2: docstrings are error messages")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    @field_validator("webhook_secrets")
    @classmethod
    def _are_signing_secrets(cls, secrets: SecretStr) -> SecretStr:
        if not all(_is_signing_secret(secret) for secret in entries(secrets.get_secret_value())):
            raise ValueError(
                "must be whsec_ and the base64 of 24 to 64 random bytes, comma-separated; "
                'make one with: echo "whsec_$(openssl rand -base64 32)"'
            )
        return secrets

    @property
    def store_url(self) -> str:
        """Where the store is; a process started by hand and told none looks on this machine."""
        return self.redis_url.get_secret_value() if self.redis_url else "redis://localhost:6379"

    @property
    def signing_secrets(self) -> list[str]:
        """What signs a webhook: every one of them, so that secrets can be exchanged."""
        return entries(self.webhook_secrets.get_secret_value())

    @property
    def local_host(self) -> str:
        """Where this machine finds what listens on `host`."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104

    @property
    def local_url(self) -> str:
        """Where this machine finds the api that these settings serve."""
        host = self.local_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that is to have the same."""
        return {
            PREFIX + name.upper(): _text(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }

    def with_redis_url(self, url: str) -> Self:
        """The same settings with another store."""
        return self.model_copy(update={"redis_url": SecretStr(url)})


def entries(text: str) -> list[str]:
    """What stands between the commas."""
    return [entry for part in text.split(",") if (entry := part.strip())]


def _is_signing_secret(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return False
    return encoded != secret and 24 <= len(key) <= 64


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _explain(error: ValidationError) -> str:
    """One line that names each variable and what is wrong; no values, they may be secrets."""
    problems = []
    for problem in error.errors(include_url=False):
        name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
        problems.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)
