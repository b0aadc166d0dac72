"""The `predictor` command with its embedded store."""

import os
import re
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.supervisor import supervisor
from tests.command import MEASURED, children, running, serve
from tests.processes import BIN, UNMEASURED, Api, Process, Processes, eventually, free_port


def test_one_command_serves_both_modes_and_resumes_after_ctrl_c(
    command: Processes, tmp_path: Path
) -> None:
    settings = {"workers": 2, "concurrency": 1, "mock_delay": 0.3, "drain": 0.1}
    api = serve(command, **settings, **MEASURED)
    assert f"http://127.0.0.1:{api.port}\n" in api.process.output
    assert api.predict("x").status_code == 200
    done = api.submit("done")
    result = api.outcome(done).content
    assert len(children(api.process, "arq predictor.worker")) == 2
    assert (tmp_path / ".predictor").stat().st_mode & 0o077 == 0
    second = command.start("predictor", port=free_port(), **UNMEASURED)
    eventually(lambda: "; waiting up to 8 s for its end" in second.output, "what it waits for", 5)
    assert second.is_running
    assert second.wait() == os.EX_CONFIG
    assert "is in use by another predictor" in second.output
    queued = [api.submit(f"queued {number}") for number in range(6)]
    api.process.signal(signal.SIGINT)
    assert api.process.wait() == 0
    assert not running(tmp_path)
    assert "Traceback" not in api.process.output
    api = serve(command)
    assert api.read(done).content == result
    assert [api.outcome(id_).status_code for id_ in queued] == [200] * 6


def test_killed_processes_are_restarted(command: Processes, tmp_path: Path) -> None:
    api = serve(command, lease=1, **MEASURED)
    kept = api.submit("kept")
    assert api.outcome(kept).status_code == 200
    for name in (
        "arq predictor.worker",
        "valkey-server",
        "supervisor.guardian",
        "predictor.api",
    ):
        (pid,) = children(api.process, name)
        os.kill(pid, signal.SIGKILL)
        eventually(partial(_has_other, api.process, name, pid), f"a new {name}")
        eventually(partial(_is_ready, api), f"readiness after {name}")
        assert api.outcome(api.submit(name)).status_code == 200
    assert api.read(kept).status_code == 200
    assert "started again" in api.process.output
    os.kill(api.process.pid, signal.SIGKILL)
    eventually(lambda: not running(tmp_path), "what is older than the guardian is ended, too")


def _has_other(process: Process, name: str, pid: int) -> set[int]:
    return set(children(process, name)) - {pid}


def _is_ready(api: Api) -> bool:
    try:
        return api.client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_killed_command_leaves_nothing(command: Processes, tmp_path: Path) -> None:
    api = serve(command)
    id_ = api.submit("x")
    (worker,) = children(api.process, "arq predictor.worker")
    environment = Path(f"/proc/{worker}/environ").read_text().split("\0")
    (notify,) = (each for each in environment if each.startswith("NOTIFY_SOCKET="))
    scratch = Path(notify.partition("=")[2]).parent
    assert scratch.exists()
    os.kill(api.process.pid, signal.SIGKILL)
    api.process.wait()
    again = serve(command)  # which waits for the end of what was left
    assert not scratch.exists()
    assert len(running(tmp_path)) <= 6
    assert again.outcome(id_).status_code == 200


def test_second_signal_skips_the_drain(command: Processes) -> None:
    api = serve(command, mock_delay=60, drain=60, **MEASURED)
    id_ = api.submit("x")
    eventually(lambda: api.status(id_)["status"] == "running", "a run that would be waited for")
    api.process.signal(signal.SIGINT)
    eventually(lambda: "stopping" in api.process.output, "the message of the first signal")
    api.process.signal(signal.SIGINT)
    assert api.process.wait(10) == 0


def test_closed_standard_output(command: Processes) -> None:
    unread = (
        "import os, sys; os.dup2(os.open('/dev/full', 1), 1); os.execv(sys.argv[1], sys.argv[1:])"
    )
    port = free_port()
    words = ("python", "-c", unread, str(BIN / "predictor"))
    process = command.start(*words, port=port, mock_delay=0, **UNMEASURED)
    api = command.client(port, process)
    assert api.predict("x").status_code == 200
    process.stop()
    assert "Traceback" not in process.output


def test_without_standard_streams_and_terminal(command: Processes) -> None:
    """As `nohup` starts it; a hangup ends it only if that is not ignored."""
    port = free_port()
    start = f"trap '' HUP; exec {BIN / 'predictor'} <&- >&-"
    process = command.start("/bin/sh", "-c", start, port=port, mock_delay=0, **UNMEASURED)
    api = command.client(port, process)
    process.signal(signal.SIGHUP)
    assert api.outcome(api.submit("x")).status_code == 200
    assert process.stop() == 0
    assert "Traceback" not in process.output
    api = serve(command)
    api.process.signal(signal.SIGHUP)
    assert api.process.wait() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no_such:predict"}, "PREDICTOR_MODEL: 'no_such:predict': no module 'no_such'"),
        ({"model": "tests.models.broken:predict"}, "ValueError: no weights found"),
        ({"workers": "many"}, "PREDICTOR_WORKERS: "),
        ({"api_processes": 0}, "PREDICTOR_API_PROCESSES: Input should be greater than"),
        ({"redis_url": "ftp://x"}, "PREDICTOR_REDIS_URL: must look like redis://"),
        ({"redis_url": "redis://localhost?protocol=9"}, "can have the options db, username"),
        ({"host": "a..b"}, "PREDICTOR_HOST: must be a host name or an IP address"),
        ({"host": os.fsdecode(b"\xff")}, "PREDICTOR_HOST: "),
        ({"host": "host.invalid"}, "PREDICTOR_HOST, PREDICTOR_PORT: cannot listen on"),
        ({"data_dir": "/proc/nothing"}, "PREDICTOR_DATA_DIR: /proc/nothing: "),
        ({"PYTHONOPTIMIZE": 2}, "PYTHONOPTIMIZE: must be less than 2"),
    ],
)
def test_start_errors_name_the_reason(
    command: Processes, settings: dict[str, Any], message: str
) -> None:
    process = command.start("predictor", **{"port": free_port()} | UNMEASURED | settings)
    assert process.wait(30) == os.EX_CONFIG
    assert message in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("settings", [{}, {"redis_url": "redis://127.0.0.1:1"}])
def test_port_in_use(command: Processes, settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = command.start("predictor", port=port, **settings)
        assert process.wait() == os.EX_CONFIG
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in process.output


def test_addresses_of_a_host_that_this_machine_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `::1` of localhost, where there is no IPv6: the others do."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))
        for host in ("192.0.2.1", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (listener,) = supervisor._bind(Config(host="localhost"))
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    del found[1]
    with pytest.raises(ConfigError, match="cannot listen on localhost:8080: Cannot assign"):
        supervisor._bind(Config(host="localhost"))


def test_external_store_is_used(redis_url: str, command: Processes) -> None:
    api = serve(command, redis_url=redis_url)
    assert api.outcome(api.submit("x")).status_code == 200
    assert not children(api.process, "valkey-server")
    assert api.process.stop() == 0


def test_options_environment_and_folders_with_long_paths(
    command: Processes, tmp_path: Path
) -> None:
    """An option wins over the environment, which models see, and no socket's path is too long."""
    temporary = tmp_path / ("long" * 20) / "temporary"
    temporary.mkdir(parents=True)
    api = serve(
        command,
        *("--model", "os:getenv"),
        model="tests.models.slow:predict",
        data_dir=tmp_path / ("long" * 20) / ("path" * 20),
        MY_VARIABLE="mine",
        TMPDIR=temporary,
    )
    assert api.predict("MY_VARIABLE").json()["result"] == "mine"
    assert api.outcome(api.submit("MY_VARIABLE")).json()["output"]["result"] == "mine"
    assert api.process.stop() == 0


def test_help_names_every_option_and_its_variable(command: Processes) -> None:
    process = command.start("predictor", "--help", COLUMNS="300")
    assert process.wait() == 0
    _, _, options = process.output.partition("options:")
    for name, field in Config.model_fields.items():
        assert field.description
        if not field.repr:
            assert f"  {_option(name)} " not in options, "a secret: others can read options"
            continue
        line = next(line for line in options.splitlines() if f"  {_option(name)} " in line)
        assert f"PREDICTOR_{name.upper()}" in line
        assert " ".join(field.description.split()).split(".", maxsplit=1)[0] in line
    assert command.start("predictor", "--no-such-option").wait() == 2


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')} VALUE"


def test_serve_is_the_same_command(command: Processes) -> None:
    api = serve(command, "serve", "--concurrency", "7", PREDICTOR_CONCURENCY=3)
    assert api.outcome(api.submit("x")).status_code == 200
    assert "worker ready: predictor.mock:predict, 7 at once" in api.process.output
    warning = "PREDICTOR_CONCURENCY is no setting; did you mean PREDICTOR_CONCURRENCY?"
    assert api.process.output.count(warning) == 1
    assert command.start("predictor", "--port", "-1", "serve").wait() == os.EX_CONFIG


def test_python_m_is_the_same_command(command: Processes) -> None:
    process = command.start("python", "-m", "predictor", "--version")
    assert process.wait() == 0
    assert re.fullmatch(r"predictor \d+\.\d+\.\d+\n", process.output)
