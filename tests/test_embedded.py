"""The embedded store: whatever happens to its disk, its folder or its time, it loses nothing."""

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.config import Config
from predictor.errors import ConfigError
from predictor.store.retry import describe
from predictor.supervisor.embedded import EmbeddedStore
from predictor.supervisor.supervisor import supervise
from tests.command import children, serve
from tests.processes import UNMEASURED, Api, Processes, eventually, free_port

#: Keeps the store busy, whoever else asks, for five seconds.
_BUSY = """
local function now() local time = redis.call('TIME') return time[1] + time[2] / 1000000 end
local start = now()
repeat until now() - start > 5
"""


def _store(api: Api) -> int:
    (pid,) = children(api.process, "valkey-server")
    return pid


def _refuses(api: Api, accepted: str, reason: str) -> None:
    """While the store is not to be had: 503 with the reason, and nothing accepted is unknown."""
    answer = api.post("x", Async_Mode="true")
    assert answer.status_code == 503
    assert reason in answer.json()["error"]
    assert answer.headers["Retry-After"]
    assert api.read(accepted).status_code == 503


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a path so short that the store's socket is in it."""
    with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
        yield Path(folder)


def test_frozen_or_busy_store_is_not_killed(command: Processes, folder: Path) -> None:
    api = serve(command, mock_delay=0.3, data_dir=folder)
    accepted = [api.submit("frozen")]
    store = _store(api)
    os.kill(store, signal.SIGSTOP)
    thawed = time.monotonic() + 6
    while time.monotonic() < thawed:
        _refuses(api, accepted[0], "TimeoutError: it did not answer in time")
    assert api.predict("sync").status_code == 200
    os.kill(store, signal.SIGCONT)
    accepted.append(eventually(lambda: _accepted(api, "busy"), "acceptance"))

    with redis.Redis(unix_socket_path=str(folder / "store.sock")) as client:
        busy = threading.Thread(target=client.eval, args=(_BUSY, 0))
        busy.start()
        eventually(lambda: not _accepted(api, "x"), "a busy store")
        while busy.is_alive():
            assert api.read(accepted[1]).status_code != 404
        busy.join()
    assert [api.outcome(id_).status_code for id_ in accepted] == [200, 200]
    assert _store(api) == store
    assert "started again" not in api.process.output


def _accepted(api: Api, text: str) -> str | None:
    answer = api.post(text, Async_Mode="true")
    assert answer.status_code in {202, 503}
    return str(answer.json()["prediction_id"]) if answer.status_code == 202 else None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk_refuses_and_loses_nothing(
    small_disk: Path, command: Processes, tmp_path: Path
) -> None:
    api = serve(command, data_dir=small_disk / "data")
    store = _store(api)
    text = "x" * 300_000
    accepted: list[str] = []
    refused = 0
    while refused < 3:
        answer = api.post(text, Async_Mode="true")
        if answer.status_code == 202:
            accepted.append(answer.json()["prediction_id"])
            assert len(accepted) < 12
        else:
            assert answer.status_code == 503
            assert "MISCONF: it cannot write to its disk" in answer.json()["error"]
            refused += 1
    assert len(accepted) > 2
    full_until = time.monotonic() + 2  # the store tries once a second to write
    while time.monotonic() < full_until:
        assert 404 not in {api.read(id_).status_code for id_ in accepted}
        time.sleep(0.05)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert [api.outcome(id_).status_code for id_ in accepted] == [200] * len(accepted)
    assert eventually(lambda: _accepted(api, "again"), "acceptance")
    assert _store(api) == store
    assert api.process.stop() == 0
    api = serve(command, data_dir=small_disk / "data")
    assert {api.read(id_).status_code for id_ in accepted} == {200}
    assert api.process.stop() == 0


def test_power_loss_in_a_folder_with_an_odd_name(folder: Path) -> None:
    odd = folder / "My Project#2 100%20 a\"b'é?"
    odd.mkdir()
    with Processes(odd, None) as command:
        api = serve(command, mock_delay=0)
        assert (odd / ".predictor/store.sock").stat().st_mode & 0o077 == 0
        ids = [api.submit(str(number)) for number in range(20)]
        results = [api.outcome(id_).content for id_ in ids]
        assert api.process.stop() == 0
        (file,) = (odd / ".predictor/appendonlydir").glob("*.incr.aof")
        size = file.stat().st_size

        with file.open("ab") as stream:  # what was being written, and a block that was not
            stream.write(b"*3\r\n$3\r\nSET\r\n$1000\r\nhalf" + bytes(200_000))
        api = serve(command)
        assert f"cut 200004 bytes after a power loss: {file}" in api.process.output
        assert [api.read(id_).content for id_ in ids] == results
        assert api.process.stop() == 0

        with file.open("r+b") as stream:
            stream.seek(size // 2)
            stream.write(bytes(512))
        failed = command.start("predictor", port=free_port(), **UNMEASURED)
        assert failed.wait() == os.EX_CONFIG
        (line,) = failed.output.splitlines()
        assert f"(exit status 1): {file} is damaged; " in line
        advice = line[line.index("bash -c") :]
        subprocess.run(["sh", "-c", advice], input=b"y\n", check=True, capture_output=True)
        api = serve(command)
        assert api.read(ids[0]).content == results[0]
        assert api.process.stop() == 0


def test_no_other_user_reads_what_the_store_writes(command: Processes, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    old = tmp_path / "data/appendonlydir"
    old.mkdir(mode=0o755)
    api = serve(command, data_dir=tmp_path / "data")
    assert api.outcome(api.submit("x")).status_code == 200
    written = {path for path in tmp_path.glob("data/**/*") if path.name != "lock"}
    assert [path for path in written if path.name.endswith(".incr.aof")]
    assert {path for path in written if path.stat().st_mode & 0o077} == set()


async def _is_ready(store: EmbeddedStore) -> bool:
    try:
        return await store.is_ready(None)
    except OSError:
        return False


async def test_ready_only_after_loading(folder: Path) -> None:
    store = EmbeddedStore(folder, folder)
    loads_slowly = ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"]
    for options, least in ([], 0), (loads_slowly, 0.5):
        server = await asyncio.create_subprocess_exec(*store.command, *options)
        started = time.monotonic()
        async with asyncio.timeout(20):
            while not await _is_ready(store):
                await asyncio.sleep(0.01)
        assert time.monotonic() - started > least
        with redis.Redis(unix_socket_path=str(folder / "store.sock")) as client:
            client.mset({f"key {number}": number for number in range(100)})
            for number in range(100):
                client.set(f"key {number}", "x" * 100)
        server.terminate()
        assert await server.wait() == 0


def test_no_folder_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(ConfigError, match=r"TMPDIR: .*No such file .*'/nowhere/"):
        supervise(Config())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ResponseError("MISCONF Errors writing: secret"), "MISCONF: it cannot write to its disk"),
        (OutOfMemoryError("command not allowed"), "OutOfMemoryError: its memory is full"),
        (
            RedisConnectionError(BusyLoadingError("the dataset")),
            "BusyLoadingError: it is loading its data",
        ),
        (ResponseError("ERR secret"), "ERR"),
        (
            RedisConnectionError(ResponseError("DB index is out of range")),
            "DB: it has no database with the number in its URL",
        ),
        (RedisConnectionError("Connection closed: secret"), "ConnectionError"),
    ],
)
def test_store_errors_are_described_without_input(error: Exception, says: str) -> None:
    assert describe(error) == says
