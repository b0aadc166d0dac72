from pathlib import Path

import pytest

from predictor.config import Config, misspelled
from predictor.errors import ConfigError
from predictor.store.url import check_url

SECRET = "whsec_" + "c2VzYW1l" * 4


def _check() -> None:
    """What every process that uses these settings does."""
    config = Config()
    check_url(config.store_url)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Config.model_fields:
        monkeypatch.delenv(f"PREDICTOR_{name.upper()}", raising=False)


def test_environment_overrides_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PREDICTOR_WORKERS=3\nPREDICTOR_PORT=9000\nOTHER=1\n")
    monkeypatch.setenv("PREDICTOR_PORT", "9001")
    config = Config()
    assert (config.workers, config.port, config.concurrency) == (3, 9001, 10)


def test_an_env_file_in_another_encoding_is_named() -> None:
    Path(".env").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match=r"^\.env cannot be read: "):
        Config()


def test_a_misspelled_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREDICTOR_CONCURENCY", "PREDICTOR_WORKER", "PREDICTOR_SERVICE_HOST", "TIMEOUTS"):
        monkeypatch.setenv(name, "3")
    Path(".env").write_text("PREDICTOR_MAXTRIES=1\nPREDICTOR_WORKERS=3\n")
    assert misspelled() == [
        ("PREDICTOR_CONCURENCY", "PREDICTOR_CONCURRENCY"),
        ("PREDICTOR_MAXTRIES", "PREDICTOR_MAX_TRIES"),
    ]
    assert Config().concurrency == 10


def test_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_REDIS_URL", "")
    assert Config().redis_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", ".example.com"),
        ("HOST", "a" * 64),
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("API_PROCESSES", "0"),
        ("API_PROCESSES", "1025"),
        ("API_PROCESSES", "two"),
        ("WORKERS", "0"),
        ("WORKERS", "1.5"),
        ("CONCURRENCY", "0"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "inf"),
        ("TIMEOUT", "1e400"),
        ("MOCK_DELAY", "-1"),
        ("LEASE", "0.1"),
        ("DRAIN", "soon"),
        ("MAX_BODY", "1MB"),
        ("MAX_BODY", "9" * 400),
        ("RESULT_TTL", "0.0004"),
        ("RATE", "1e-307"),
        ("RATE", "-1"),
        ("MODEL", "x" * 1001),
        ("MODEL_VERSION", "x" * 201),
        ("MODEL_VERSION", "1\n2"),
        ("MODEL_VERSION", "1\x85"),
        ("MODEL_VERSION", "\udcff"),
        ("MAX_RESULT", "0"),
        ("MAX_RESULT", "268435457"),
        ("RUNS_IN", "threads"),
        ("SPARE", "-1"),
        ("RUNS_PER_PROCESS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("URL", "localhost:8080"),
        ("URL", "http://"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://localhost:99999"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "redis://a..b"),
        ("REDIS_URL", "redis://localhost/prod"),
        ("REDIS_URL", "redis://localhost/1/2"),
        ("REDIS_URL", "redis://localhost?db=-1"),
        ("REDIS_URL", "redis://localhost?protocol=9"),
        ("REDIS_URL", "redis://localhost?ssl_cert_reqs=none"),
        ("REDIS_URL", "rediss://localhost?ssl_cert_reqs=maybe"),
        ("REDIS_URL", "rediss://localhost?ssl_ca_certs=/nowhere"),
        ("REDIS_URL", "redis+sentinel://a..b/primary"),
        ("REDIS_URL", "redis+sentinel://localhost/primary/-1"),
        ("REDIS_URL", "redis+sentinel://localhost/primary?db=1"),
        ("WEBHOOK_SECRETS", "sesame"),
        ("WEBHOOK_SECRETS", "c2VzYW1l" * 4),
        ("WEBHOOK_SECRETS", "whsec_"),
        ("WEBHOOK_SECRETS", "whsec_" + "c2VzYW1l" * 3),
        ("WEBHOOK_SECRETS", "whsec_" + "c2VzYW1l" * 11),
        ("WEBHOOK_SECRETS", "whsec_" + "c2VzYW1_" * 4),
        ("WEBHOOK_SECRETS", f"{SECRET},whsec_x"),
        ("WEBHOOK_ALLOW", "http://localhost"),
        ("WEBHOOK_ALLOW", "10.0.0.0/33"),
        ("WEBHOOK_ALLOW", ","),
        ("WEBHOOK_SECRETS", ","),
        ("API_KEYS", ", ,"),
        ("PUBLIC", ","),
        ("CORS_ORIGINS", ","),
        ("ALLOWED_HOSTS", ","),
    ],
)
def test_invalid_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PREDICTOR_{name}", value)
    with pytest.raises(ConfigError, match=f"^PREDICTOR_{name}: ") as caught:
        _check()
    assert "\n" not in str(caught.value)


def test_invalid_redis_url_hides_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_REDIS_URL", "http://me:sesame@host")
    with pytest.raises(ConfigError) as caught:
        _check()
    assert "sesame" not in str(caught.value)
    monkeypatch.setenv("PREDICTOR_REDIS_URL", "redis://me:sesame@host")
    assert "sesame" not in repr(Config())


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_WEBHOOK_SECRETS", f"{SECRET}, {SECRET}AA==,")
    assert Config().signing_secrets == [SECRET, f"{SECRET}AA=="]
    assert "c2VzYW1l" not in repr(Config())
    monkeypatch.setenv("PREDICTOR_WEBHOOK_SECRETS", f"{SECRET}!")
    with pytest.raises(ConfigError, match="make one with: echo") as caught:
        Config()
    assert "c2VzYW1l" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("a.b", "http://a.b:1")],
)
def test_local_url(host: str, url: str) -> None:
    assert Config(host=host, port=1).local_url == url


def test_all_errors_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_PORT", "x")
    monkeypatch.setenv("PREDICTOR_LEASE", "x")
    with pytest.raises(ConfigError, match=r"PREDICTOR_PORT: .*; PREDICTOR_LEASE: "):
        Config()


def test_environment_round_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "redis://:p%40@h/2"
    config = Config(
        port=1234, timeout=0.5, log_format="json", webhook_secrets=SECRET, redis_url=url
    )
    for name, value in config.environment().items():
        monkeypatch.setenv(name, value)
    assert Config() == config
