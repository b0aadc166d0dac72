"""`predictor doctor`: looks at settings, store, model and machine, and says what to change."""

import asyncio
import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from predictor.config import PREFIX, Config, entries, misspelled
from predictor.errors import ConfigError
from predictor.process import call_in_thread
from predictor.store.connection import connect
from predictor.store.inspection import Finding, error_if, inspect, warning_if
from predictor.supervisor.embedded import EmbeddedStore

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
    try:
        config = Config(**options)
        connect(config.store_url)  # not yet: this reads the URL
        if config.api_keys:
            from predictor.api.access import Keys  # not at the top: with all of the api

            Keys(config.api_keys)
    except ConfigError as error:
        findings = [Finding("settings", "error", str(error), "See .env.example.")]
        status = os.EX_CONFIG
    else:
        checks = _settings, _store, _model, _api, _disk
        findings = [found for each in checks for found in asyncio.run(_findings(config, each))]
        status = int(any(each.status == "error" for each in findings))
    if as_json:
        worst = max((each.status for each in findings), key=("ok", "warning", "error").index)
        report = {"status": worst, "checks": [each._asdict() for each in findings]}
        print(json.dumps(report))  # noqa: T201
    for each in () if as_json else findings:
        print(f"{each.status:8} {each.name:12} {each.found}")  # noqa: T201
        if each.advice:
            print(f"{'':22}{each.advice}")  # noqa: T201
    sys.stdout.flush()  # here a closed pipe is an error that is handled
    return status


async def _findings(config: Config, check: Callable[[Config], Iterator[Finding]]) -> list[Finding]:
    """What a check finds; one that hangs or fails hides no others."""
    name, found = check.__name__[1:], list[Finding]()
    checked = call_in_thread(lambda: found.extend(check(config)))
    await asyncio.wait([checked], timeout=_LIMIT)
    if not checked.done():
        text = f"not checked within {_LIMIT:g} s"
        found.append(Finding(name, "error", text, "See what hangs, such as DNS."))
    elif error := checked.exception():
        is_safe = isinstance(error, ConfigError)  # others' texts may hold a secret
        text = str(error) if is_safe else getattr(error, "strerror", "") or type(error).__name__
        found.append(Finding(name, "error", f"cannot be checked: {text}", "See what fails."))
    return found


def _settings(config: Config) -> Iterator[Finding]:
    file, keys = Path(".env").resolve(), entries(config.api_keys)
    found = f"{len(config.model_fields_set)} set; {file} {'read' if file.exists() else 'absent'}"
    wrong = [f"{name} is no setting: did you mean {meant}?" for name, meant in misspelled()]
    yield warning_if(bool(wrong), "settings", found, " ".join(wrong))
    is_open = not (keys or config.host.startswith(_LOOPBACK))
    advice = "Set PREDICTOR_API_KEYS: all who reach this host can use it."
    yield warning_if(is_open, "access", f"{len(keys)} keys; host {config.host}", advice)


def _store(config: Config) -> Iterator[Finding]:
    if config.redis_url is None:
        folder = config.data_dir.resolve()
        socket = folder / "store.sock"  # or a link to it
        store = EmbeddedStore(folder, socket.resolve().parent)
        size = sum(file.stat().st_size for file in folder.glob("appendonlydir/*"))
        is_running = socket.exists()
        found = f"embedded, {size >> 20} MiB in {folder}"
        advice = "Start predictor, or set PREDICTOR_REDIS_URL."
        yield warning_if(not is_running, "connection", found, advice)
        yield from inspect(config, store.url) if is_running else ()
        return
    url = urlsplit(config.redis_url)
    is_local = url.scheme == "unix" or (url.hostname or "").startswith(_LOOPBACK)
    is_safe = is_local or (url.scheme == "rediss" and "cert_reqs=none" not in url.query)
    advice = "Use rediss:// and certificates, unless the network is private."
    yield warning_if(not is_safe, "connection", f"{url.scheme}://", advice)
    yield from inspect(config, config.redis_url)


def _model(config: Config) -> Iterator[Finding]:
    command, environment = [sys.executable, "-c", _MODEL], os.environ | config.environment()
    environment |= {f"{PREFIX}LOG_FORMAT": "console"}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, env=environment, check=False, timeout=_LIMIT - 1, **pipes)  # noqa: S603
    said = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
    advice = f"Mend it, or set PREDICTOR_MODEL (exit status {done.returncode})."
    yield error_if(done.returncode != 0, "model", said.removeprefix("predictor: "), advice)


def _api(config: Config) -> Iterator[Finding]:
    url = urlsplit(str(config.url or config.local_url))
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    found = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
    try:
        connection = kind(url.hostname or "", url.port, timeout=_SILENCE)
        connection.request("GET", f"{url.path.rstrip('/')}/health/ready")
        response = connection.getresponse()
        found += f": {response.status} {response.read(500).decode(errors='replace')}"
        yield error_if(response.status != 200, "api", found, "See its log.")
    except (OSError, http.client.HTTPException) as error:
        found, advice = f"{found}: {type(error).__name__}", "Start it, or set PREDICTOR_URL."
        yield Finding("api", "error" if config.url else "warning", found, advice)


def _disk(config: Config) -> Iterator[Finding]:
    folders = [Path(tempfile.gettempdir())]
    folders += [] if config.redis_url else [config.data_dir.resolve()]
    for folder in folders:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        is_ours, free = os.access(there, os.W_OK | os.X_OK), shutil.disk_usage(there).free
        yield error_if(not is_ours, "folder", str(folder), "Let this user write there.")
        found = f"{free / 2**30:.1f} GiB free in {folder}"
        yield warning_if(free < _ROOM, "disk", found, "Free some of it.")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    advice = "Raise it: ulimit -Hn, or LimitNOFILE=."
    yield warning_if(0 <= most < _FILES, "open files", f"at most {most}", advice)
