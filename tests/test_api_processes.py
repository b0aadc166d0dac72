"""Several api processes of one command: one address, and no client can tell."""

import json
import os
import re
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.command import children, serve
from tests.processes import UNMEASURED, Api, Processes, eventually

MODEL = {"model": "tests.models.which:predict", "concurrency": 100, "api_processes": 2}


def _pids(api: Api) -> set[int]:
    return set(children(api.process, "predictor.api"))


def _ask(api: Api, name: str, until: Path | str = "") -> int | None:
    """By a connection of its own: the process that answers; None: it is cut off."""
    body = json.dumps({"input": {"name": name, "until": str(until)}}).encode()
    head = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d"
    try:
        status, answer = api.raw(head % len(body), body)
    except (ConnectionResetError, IndexError):
        return None
    assert status == 200
    return int(json.loads(answer)["result"])


def _hold(
    api: Api, until: Path, threads: ThreadPoolExecutor
) -> tuple[dict[str, Future[int | None]], dict[str, int]]:
    """Requests that both processes hold until the file is there, and who holds which."""
    asked: dict[str, Future[int | None]] = {}
    held: dict[str, int] = {}

    def has_started() -> bool:
        started = Path(f"{until}.started")
        lines = started.read_text().splitlines() if started.exists() else []
        held.update({name: int(pid) for name, pid in map(str.split, lines)})
        return len(held) == len(asked)

    while len(set(held.values())) < 2 or len(held) < 6:
        assert len(asked) < 60, "one process has them all"
        name = str(len(asked))
        asked[name] = threads.submit(_ask, api, name, until)
        eventually(has_started, "a start")
    return asked, held


def test_the_death_of_one_costs_only_what_it_held(command: Processes, tmp_path: Path) -> None:
    api = serve(command, **MODEL)
    assert "with 2 api processes and 1 worker." in api.process.output
    pids, until = _pids(api), tmp_path / "until"
    with ThreadPoolExecutor(60) as threads:
        asked, held = _hold(api, until, threads)
        assert set(held.values()) == pids
        victim = held["0"]
        (other,) = pids - {victim}
        os.kill(victim, signal.SIGKILL)
        during = [_ask(api, "") for _ in range(50)]
        (new,) = eventually(lambda: _pids(api) - pids, "a new process")
        eventually(lambda: _ask(api, "") == new, "an answer of the new process")
        until.touch()
        for name, pid in held.items():
            assert asked[name].result() == (None if pid == victim else other)
    assert set(during) <= {other, new}
    assert api.process.output.count("the api ended (exit status -9): started again") == 1
    assert api.process.stop() == 0


def _client_of_each(api: Api, stack: ExitStack) -> list[httpx.Client]:
    """One with a connection to each process."""
    found: dict[int, httpx.Client] = {}
    while len(found) < 2:
        client = stack.enter_context(httpx.Client(base_url=api.client.base_url, verify=False))
        pid = client.post("/predict", json={"input": "x"}).json()["result"]
        found.setdefault(pid, client)
    return list(found.values())


def test_any_process_knows_every_prediction(command: Processes, tmp_path: Path) -> None:
    api, until = serve(command, **MODEL), tmp_path / "until"
    request = {"input": {"name": "x", "until": str(until)}}
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        one, other = _client_of_each(api, stack)
        headers = {"Async-Mode": "true", "Idempotency-Key": "key"}
        id_ = one.post("/predict", json=request, headers=headers).json()["prediction_id"]
        again = other.post("/predict", json=request, headers=headers)
        assert (again.json()["prediction_id"], again.status_code) == (id_, 202)
        assert again.headers["Idempotency-Replayed"] == "true"
        eventually(lambda: other.get(f"/predict/{id_}/status").json()["started"], "a start")

        waits = threads.submit(other.get, f"/predict/{id_}", headers={"Prefer": "wait=30"})
        events = threads.submit(one.get, f"/predict/{id_}/events", timeout=30)
        until.touch()
        assert waits.result().json()["output"]["result"] not in _pids(api)
        assert events.result().text.count("event: completed") == 1
        assert other.get(f"/predict/{id_}/events").content == events.result().content

        until.unlink()
        headers = {"Async-Mode": "true"}
        id_ = one.post("/predict", json=request, headers=headers).json()["prediction_id"]
        waits = threads.submit(one.get, f"/predict/{id_}", headers={"Prefer": "wait=30"})
        assert other.post(f"/predict/{id_}/cancel").status_code in {200, 202}
        assert waits.result().status_code == 410
    assert api.process.stop() == 0


def test_a_stop_refuses_what_is_new_and_finishes_what_is_held(
    command: Processes, tmp_path: Path
) -> None:
    """On a free port, the same one for all processes and all addresses of the host."""
    process = command.start("predictor", port=0, host="localhost", drain=20, **MODEL, **UNMEASURED)
    address = r"http://localhost:(\d+)"
    port = int(eventually(lambda: re.search(address, process.output), "an address", 30)[1])
    api, until = command.client(port, process), tmp_path / "until"
    families = {info[0] for info in socket.getaddrinfo("localhost", port)}
    for family, ip in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
        if family in families:
            socket.create_connection((ip, port)).close()
    with ThreadPoolExecutor(60) as threads:
        asked, held = _hold(api, until, threads)
        process.signal(signal.SIGTERM)
        eventually(lambda: _is_refused(port), "a refusal")
        until.touch()
        assert {name: answer.result() for name, answer in asked.items()} == held
        assert process.wait() == 0


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # by the close itself
        return False
    return False
