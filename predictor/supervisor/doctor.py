"""`predictor doctor`: looks at settings, store, model and machine, and says what to change."""

import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from predictor.config import Config, entries, misspelled
from predictor.errors import ConfigError
from predictor.store.connection import connect
from predictor.store.inspection import Finding, advise, inspect
from predictor.supervisor.embedded import EmbeddedStore
from predictor.webhooks.allowlist import Allowed

_LIMIT, _SILENCE = 15.0, 3.0  # seconds: of a check, and of the API
_ROOM, _FILES = 2**30, 4096  # bytes that are to be free, and files that may be open
_LOOPBACK = ("127.", "::1", "localhost")
#: Run by a process of its own, because an import can do anything.
_MODEL = """import inspect, predictor.model.loading, predictor.process
with predictor.process.ends_if_misconfigured():
    config = predictor.config.Config()
    model = predictor.model.loading.configured_model(config).signature
types = map(inspect.formatannotation, (model.takes.type, model.gives.type))
print(config.model, "takes {}, gives {}".format(*types))"""


def diagnose(options: dict[str, Any], *, as_json: bool) -> int:
    """Print what was found, and what to do about it. Returns the exit status."""
    findings: list[Finding]
    try:
        config = Config(**options)
        Allowed.parse(config.webhook_allow)
        connect(config.store_url)  # not yet: this reads the URL
    except ConfigError as error:
        findings, status = [Finding("settings", str(error), "See .env.example.")], os.EX_CONFIG
    else:
        checks = _settings, _store, _model, _api, _disk
        findings = [finding for check in checks for finding in _findings(config, check)]
        status = int(any(each.status == "error" for each in findings))
    if as_json:
        names = "name", "status", "found", "advice"
        rows = [{name: getattr(each, name) for name in names} for each in findings]
        found = {each.status for each in findings}
        worst = next(each for each in ("error", "warning", "ok") if each in found)
        print(json.dumps({"status": worst, "checks": rows}))  # noqa: T201
        return status
    for each in findings:
        print(f"{each.status:8} {each.name:12} {each.found}")  # noqa: T201
        if each.advice:
            print(f"{'':22}{each.advice}")  # noqa: T201
    return status


def _findings(config: Config, check: Callable[[Config], Iterator[Finding]]) -> list[Finding]:
    """What a check finds; one that hangs or fails hides no others."""
    name, found = check.__name__[1:], list[Finding]()

    def run() -> None:
        try:
            for finding in check(config):
                found.append(finding)
        except Exception as error:
            kind = type(error).__name__  # not its text, which may hold a secret
            found.append(Finding(name, f"cannot be checked: {kind}", "See what fails."))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_LIMIT)
    late = Finding(name, f"not checked within {_LIMIT:g} s", "See what hangs, such as DNS.")
    return [*found, late] if thread.is_alive() else found


def _settings(config: Config) -> Iterator[Finding]:
    file, keys = Path(".env").resolve(), entries(config.api_keys)
    found = f"{len(config.model_fields_set)} set; {file} {'read' if file.exists() else 'absent'}"
    wrong = [f"{name} is no setting: did you mean {meant}?" for name, meant in misspelled()]
    yield Finding("settings", found, " ".join(wrong), "warning")
    is_open = not (keys or config.host.startswith(_LOOPBACK))
    advice = advise(is_open, "Set PREDICTOR_API_KEYS: all who reach this host can use it.")
    yield Finding("access", f"{len(keys)} keys; host {config.host}", advice, "warning")


def _store(config: Config) -> Iterator[Finding]:
    if config.redis_url is None:
        store, folder = EmbeddedStore(config.data_dir, Path("/")), config.data_dir.resolve()
        size = sum(file.stat().st_size for file in folder.glob("appendonlydir/*"))
        is_running = (folder / "store.sock").exists()
        advice = advise(not is_running, "Start predictor, or set PREDICTOR_REDIS_URL.")
        found = f"embedded, {size >> 20} MiB in {folder}"
        yield Finding("connection", found, advice, "warning")
        yield from inspect(config, store.url) if is_running else ()
        return
    url = urlsplit(config.redis_url)
    is_local = url.scheme == "unix" or (url.hostname or "").startswith(_LOOPBACK)
    is_safe = is_local or (url.scheme == "rediss" and "cert_reqs=none" not in url.query)
    advice = advise(not is_safe, "Use rediss:// and certificates, unless the network is private.")
    yield Finding("connection", f"{url.scheme}://", advice, "warning")
    yield from inspect(config, config.redis_url)


def _model(config: Config) -> Iterator[Finding]:
    command, environment = [sys.executable, "-c", _MODEL], os.environ | config.environment()
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, env=environment, check=False, timeout=_LIMIT - 1, **pipes)  # noqa: S603
    said = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
    advice = f"Mend it, or set PREDICTOR_MODEL (exit status {done.returncode})."
    yield Finding("model", said.removeprefix("predictor: "), advice if done.returncode else "")


def _api(config: Config) -> Iterator[Finding]:
    url = urlsplit(str(config.url or config.local_url))
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    found = f"{url.scheme}://{url.hostname}:{url.port}"
    severity = "error" if config.url else "warning"
    try:
        connection = kind(url.hostname or "", url.port, timeout=_SILENCE)
        connection.request("GET", f"{url.path.rstrip('/')}/health/ready")
        response = connection.getresponse()
        found += f": {response.status} {response.read(500).decode(errors='replace')}"
        advice, severity = advise(response.status != 200, "See its log."), "error"
    except (OSError, http.client.HTTPException) as error:
        found, advice = f"{found}: {type(error).__name__}", "Start it, or set PREDICTOR_URL."
    yield Finding("api", found, advice, severity)


def _disk(config: Config) -> Iterator[Finding]:
    folders = [Path(tempfile.gettempdir())]
    folders += [] if config.redis_url else [config.data_dir.resolve()]
    for folder in folders:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        found = f"{folder}: {free / 2**30:.1f} GiB free"
        if os.access(there, os.W_OK | os.X_OK):
            yield Finding("disk", found, advise(free < _ROOM, "Free some of it."), "warning")
        else:
            yield Finding("disk", found, "Let this user write there.")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    advice = advise(0 <= most < _FILES, "Raise it: ulimit -Hn, or LimitNOFILE=.")
    yield Finding("open files", f"at most {most}", advice, "warning")
