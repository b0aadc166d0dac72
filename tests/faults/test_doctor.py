"""`predictor doctor`: what it finds, what it says to do, and that nothing makes it hang."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from predictor.config import Config
from predictor.store.inspection import Finding
from predictor.supervisor import doctor as module
from tests.command import serve
from tests.faults.conftest import Farm, Store
from tests.processes import BIN, ROOT, UNMEASURED, Processes, eventually


def doctor(folder: Path, *options: str, **settings: Any) -> tuple[int, dict[str, Any]]:
    """Its exit status, and its checks by their names."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREDICTOR_")}
    environment |= {f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        [str(BIN / "predictor"), "doctor", "--json", *options],
        env=environment | UNMEASURED | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert not done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"status", "checks"}
    order = ["ok", "warning", "error"]
    statuses = [check["status"] for check in report["checks"]]
    assert report["status"] == max(statuses, key=order.index)
    assert done.returncode == 78 or done.returncode == int("error" in statuses)
    for check in report["checks"]:
        assert set(check) == {"name", "status", "found", "advice"}
        assert bool(check["advice"]) == (check["status"] != "ok"), check
    return done.returncode, {check["name"]: check for check in reversed(report["checks"])}


def test_all_is_well_beside_a_running_command(command: Processes, tmp_path: Path) -> None:
    api = serve(command)
    status, checks = doctor(tmp_path, port=api.port)
    assert status == 0
    assert {name for name, check in checks.items() if check["status"] != "ok"} <= {
        "disk",
        "latency",
    }
    assert "valkey 9" in checks["store"]["found"]
    assert checks["api"]["found"].endswith(': 200 {"status":"ready"}')
    assert checks["model"]["found"] == "predictor.mock:predict takes str, gives str"
    text = subprocess.check_output(
        [str(BIN / "predictor"), "doctor", "--port", str(api.port)], cwd=tmp_path, text=True
    )
    assert "ok       store        valkey" in text


def test_a_data_folder_with_a_long_path(command: Processes, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    api = serve(command, data_dir=folder)
    status, checks = doctor(tmp_path, port=api.port, data_dir=folder)
    assert (status, checks["connection"]["status"]) == (0, "ok")
    assert "valkey 9" in checks["store"]["found"]
    assert api.process.stop() == 0
    _, checks = doctor(tmp_path, port=api.port, data_dir=folder)
    assert "Start predictor" in checks["connection"]["advice"]


def test_a_pipe_that_closes(tmp_path: Path) -> None:
    command = f"{BIN / 'predictor'} doctor | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_before_the_start_there_are_only_warnings(tmp_path: Path) -> None:
    status, checks = doctor(tmp_path)
    assert status == 0
    assert "Start predictor" in checks["connection"]["advice"]
    assert "Start it" in checks["api"]["advice"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"lease": 0, "api_keys": "me:SHORT-sekret"}, "PREDICTOR_LEASE: "),
        ({"webhook_allow": "a b"}, "PREDICTOR_WEBHOOK_ALLOW: "),
        ({"api_keys": f"a:{'k' * 16},b:{'k' * 16}"}, "b has a key of another name"),
        ({"redis_url": "redis://user:SHORT-sekret@host:port"}, "PREDICTOR_REDIS_URL: "),
        ({"redis_url": "redis://user:SHORT-sekret@host?protocol=9"}, "PREDICTOR_REDIS_URL: "),
    ],
)
def test_unusable_settings(tmp_path: Path, settings: dict[str, Any], found: str) -> None:
    status, checks = doctor(tmp_path, **settings)
    assert status == os.EX_CONFIG
    assert found in checks["settings"]["found"]
    assert "SHORT-sekret" not in str(checks)


def test_what_is_wrong_is_said(tmp_path: Path, farm: Farm) -> None:
    client: Any = farm.store.client
    client.config_set("appendonly", "no")
    client.acl_setuser("narrow", True, passwords=["+sekret"], keys=["*"], categories=["+@all"],
                       commands=["-zadd", "-subscribe", "-config"])  # fmt: skip
    client.zadd("arq:queue", {"a": 1000 * (time.time() - 400)})
    client.zadd("predictor:deliveries", {"a": 1000 * (time.time() - 400)})
    client.config_set("maxmemory", round(client.info("memory")["used_memory"] / 0.9))
    url = farm.store.url.replace("unix://", "unix://narrow:sekret@")
    settings = {"redis_url": url, "wait_replicas": 1, "host": "0.0.0.0", "LEESE": 1}
    status, checks = doctor(tmp_path, model="tests.models.broken:nothing", **settings)
    client.delete("arq:queue", "predictor:deliveries")
    assert status == 1
    assert checks["rights"]["found"] == "missing: ZADD, PUBLISH, SUBSCRIBE"  # no channels
    for name, advice in {
        "settings": "PREDICTOR_LEASE",
        "access": "PREDICTOR_API_KEYS",
        "memory": "maxmemory",
        "persistence": "appendonly",
        "replicas": "PREDICTOR_WAIT_REPLICAS",
        "queue": "workers",
        "deliveries": "predictor.webhooks",
        "workers": "Start one",
        "model": "PREDICTOR_MODEL",
    }.items():
        assert advice in checks[name]["advice"], name
    assert "sekret" not in str(checks)
    assert not farm.store.leftovers()


def test_a_store_that_cannot_write_to_its_disk(tmp_path: Path, store_folder: Path) -> None:
    (store_folder / "dump.rdb").mkdir()
    with Store(store_folder, save="3600 1000000") as store:
        client: Any = store.client
        client.bgsave()
        eventually(lambda: client.info()["rdb_last_bgsave_status"] == "err", "a failed save")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.ping()
        status, checks = doctor(tmp_path, redis_url=store.url)
    assert status == 1
    assert checks["writes"]["found"] == "failed: rdb_last_bgsave_status"
    assert "disk" in checks["writes"]["advice"]
    assert {"latency", "replicas", "clock", "rights", "queue"} <= checks.keys()


def test_a_store_that_is_frozen_and_an_api_that_is_silent(
    tmp_path: Path, store_folder: Path
) -> None:
    with Store(store_folder) as store, socket.create_server(("127.0.0.1", 0)) as silent:
        store.freeze()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, checks = doctor(tmp_path, redis_url=store.url, url=url)
    assert status == 1
    assert [checks[name]["status"] for name in ("store", "api")] == ["error"] * 2
    assert {"settings", "model", "disk"} <= checks.keys()


async def test_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr(module, "_LIMIT", 1.5)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = await module._findings(Config(model="endless:predict"), module._model)
    assert found.found == "cannot be checked: TimeoutExpired"

    def _hangs(_: Config) -> Iterator[Finding]:
        yield Finding("first", "ok", "is kept")
        time.sleep(1000)

    monkeypatch.setattr(module, "_LIMIT", 0.1)
    first, last = await module._findings(Config(), _hangs)
    assert first.status == "ok"
    assert (last.name, last.status) == ("hangs", "error")
