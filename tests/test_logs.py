"""Every line of every process is a record with its ids, and holds nothing that is secret."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import ResponseError

from predictor import logs
from predictor.errors import ModelFailed
from tests.command import children, serve
from tests.processes import Process, Processes, eventually

Records = list[dict[str, Any]]


def records(output: str) -> Records:
    """The lines, which are all JSON objects."""
    found = [json.loads(line) for line in output.splitlines()]
    for each in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"])
        assert each["level"] in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
        assert each["logger"]
        assert each["message"]
    return found


def of(found: Records, logger: str) -> Records:
    return [each for each in found if each["logger"] == logger]


def test_every_line_of_a_command_is_a_record(command: Processes, tmp_path: Path) -> None:
    """Of supervisor, api, worker, deliverer, heartbeat and the model's processes."""
    settings = {"runs_in": "process", "webhook_secrets": "whsec_" + "A" * 32}
    api = serve(command, model="tests.models.speaks:in_thread", log_format="auto", **settings)
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "a model")
    assert api.predict("sync").status_code == 200
    id_ = api.submit("async")
    assert api.outcome(id_).status_code == 200
    assert api.predict("sesame").status_code == 500
    os.kill(children(api.process, "predictor.store.heartbeat")[0], 9)
    eventually(lambda: "heartbeat process ended" in api.process.output, "a line about it")
    os.kill(children(api.process, "arq predictor.worker")[0], 9)
    eventually(lambda: api.process.output.count("worker ready") == 2, "another worker", 30)
    api.process.stop()
    found = records(api.process.output)
    expected = {"predictor.supervisor.supervisor", "predictor.worker", "uvicorn.access", "speaks"}
    assert expected <= {each["logger"] for each in found}
    (printed,) = [each for each in of(found, "model.stdout") if "printed async" in each["message"]]
    assert printed["prediction_id"] == id_
    (line,) = [each for each in of(found, "model.stdout") if "printed sync" in each["message"]]
    assert line["request_id"]
    assert "sesame" not in api.process.output


@pytest.mark.parametrize("how", ["in_thread", "on_loop", "in_process"])
def test_lines_of_predictions_that_run_at_once_have_their_ids(
    processes: Processes, how: str
) -> None:
    settings: dict[str, Any] = {"log_format": "json", "concurrency": 4}
    if how == "in_process":
        settings |= {"runs_in": "process", "concurrency": 2, "spare": 0}
    settings["model"] = f"tests.models.speaks:{how.replace('process', 'thread')}"
    api, worker = processes.api(**settings), processes.worker(**settings)
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "a model")
    ids = {text: api.submit(text) for text in "abcd"}
    with ThreadPoolExecutor(settings["concurrency"]) as pool:  # more would have to wait
        answers = dict(zip("stuv", pool.map(api.predict, "stuv"), strict=True))
    assert {answer.status_code for answer in answers.values()} == {200}
    assert all(api.outcome(id_).status_code == 200 for id_ in ids.values())
    for text, id_ in ids.items():
        assert {each["prediction_id"] for each in _said(worker, text)} == {id_}
    for text, answer in answers.items():
        said = _said(api.process, text)
        assert {each["request_id"] for each in said} == {answer.headers["x-request-id"]}
        (ended,) = [
            each
            for each in of(records(api.process.output), "predictor.predictions")
            if each["request_id"] == answer.headers["x-request-id"]
        ]
        assert {each["prediction_id"] for each in said} == {ended["prediction_id"]}


def _said(process: Process, text: str) -> Records:
    """What the model has said of an input: in each way once."""

    def find() -> Records:
        found = records(process.output)
        return [
            each for each in found if re.search(rf"(ed|en) {text}( at last)?\b", each["message"])
        ]

    said: Records = eventually(lambda: len(found := find()) >= 5 and found, "what it says")
    assert {each["message"] for each in of(said, "model.stdout")} == {
        f"logged {text}",  # by the handler that the model has added
        f"printed {text} at last",
    }
    assert [each["message"] for each in of(said, "speaks")] == [f"logged {text}"]
    assert [each["message"] for each in of(said, "model.stderr")] == [f"written {text}"]
    assert len(of(said, "py.warnings")) == 1
    return said


def test_lines_of_a_batch_have_all_ids(processes: Processes) -> None:
    settings = {"model": "tests.models.speaks:in_batch", "log_format": "json"}
    api = processes.api(**settings)
    ids = [api.submit(text) for text in "abc"]
    worker = processes.worker(**settings)
    assert all(api.outcome(id_).status_code == 200 for id_ in ids)
    found = [each for each in records(worker.output) if "a+b+c" in each["message"]]
    assert {each["prediction_id"] for each in found} == {",".join(ids)}
    assert len(found) == 5

    def have_ended() -> bool:
        ended = of(records(worker.output), "predictor.predictions")
        return {each["prediction_id"] for each in ended} == set(ids)

    eventually(have_ended, "their lines, which may come after the responses")


def test_every_prediction_is_one_line(processes: Processes) -> None:
    settings: dict[str, Any] = {"model": "tests.models.slow:predict", "log_format": "json"}
    settings["timeout"] = 1
    api = processes.api(**settings)
    canceled, expired = api.submit("0"), api.submit("0", **{"Cancel-After": "1ms"})
    api.client.post(f"/predict/{canceled}/cancel")
    erased = api.submit("0", **{"Cancel-After": "1ms"})
    eventually(lambda: api.status(erased)["status"] == "timed_out", "an end of its time")
    assert api.client.delete(f"/predict/{erased}").status_code == 204
    worker = processes.worker(**settings)
    succeeded, timed_out, stopped = api.submit("0.2"), api.submit("9"), api.submit("0.9")
    eventually(lambda: api.status(stopped)["status"] == "running", "a run")
    api.client.post(f"/predict/{stopped}/cancel")
    for id_ in (expired, succeeded, timed_out, stopped):
        api.outcome(id_)
    assert api.predict("0.1").status_code == 200
    assert api.predict("9").status_code == 504
    assert api.client.post("/predict", json={}).status_code == 422, "no prediction"
    lines = [
        each
        for process in (api.process, worker)
        for each in of(records(process.output), "predictor.predictions")
    ]
    outcomes = {each["prediction_id"]: each["outcome"] for each in lines}
    assert len(outcomes) == len(lines) == 8
    expected = {canceled: "canceled", expired: "expired", succeeded: "succeeded"}
    expected |= {erased: "expired"}
    expected |= {timed_out: "timed_out", stopped: "canceled"}
    assert expected.items() <= outcomes.items()
    assert sorted(each["outcome"] for each in lines if each["mode"] == "sync") == [
        "succeeded",
        "timed_out",
    ]
    (line,) = [each for each in lines if each["prediction_id"] == succeeded]
    assert 0 <= line["queue_seconds"] < 1
    assert 0.2 <= line["run_seconds"] < 1
    assert line["message"].startswith(f"prediction {succeeded} async succeeded (queue ")
    assert processes.api(**settings, sync="queue").predict("0").status_code == 200

    def is_said() -> bool:
        return bool(of(records(worker.output), "predictor.predictions")[-1]["mode"] == "sync")

    eventually(is_said, "its line, which may come after its response")


def test_a_queued_sync_prediction_whose_client_leaves_is_one_line(processes: Processes) -> None:
    api = processes.api(sync="queue", log_format="json")
    with pytest.raises(httpx.ReadTimeout):
        api.client.post("/predict", json={"input": "x"}, timeout=0.5)

    def lines() -> Records:
        return of(records(api.process.output), "predictor.predictions")

    (line,) = eventually(lines, "its line")
    assert (line["mode"], line["outcome"]) == ("sync", "canceled")


def test_every_line_of_uvicorn_is_a_record(processes: Processes) -> None:
    api = processes.api(log_format="auto", mock_delay=0)
    answer = api.client.get("/health/live?key=sesame", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 200
    api.process.stop()
    (line,) = [each for each in records(api.process.output) if each["logger"] == "uvicorn.access"]
    assert line["request_id"] == "mine"
    assert "GET /health/live HTTP/1.1" in line["message"]
    assert "sesame" not in api.process.output


def test_on_a_terminal_lines_are_for_people() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "predictor.webhooks"]
    with subprocess.Popen(command, stderr=theirs, env=_environment()) as process:
        os.close(theirs)
        line = os.read(ours, 4096).decode()
        process.terminate()
    os.close(ours)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING predictor.webhooks: ", line)


def _environment() -> dict[str, str]:
    return {name: each for name, each in os.environ.items() if not name.startswith("PREDICTOR_")}


def _run(program: str, **settings: str) -> Records:
    """The records of a program that logs JSON, and prints into its log."""
    start = "from predictor import logs; logs.configure_logging('json', 'info', prints=True)\n"
    command = [sys.executable, "-c", start + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return records(done.stderr)


def test_a_last_traceback_is_one_record() -> None:
    found = _run(
        "import threading, logging\n"
        "class Bad:\n"
        "    def __del__(self): raise OSError('of no use')\n"
        "Bad()\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "logging.getLogger('model').warning('%d pages', 'many')\n"
        "raise RuntimeError('the end')"
    )
    texts = [each.get("exc_info", "").rpartition("\n")[2] for each in found]
    ends = [
        "OSError: of no use",
        "ZeroDivisionError: division by zero",
        "",
        "RuntimeError: the end",
    ]
    assert texts == ends
    assert found[2]["message"] == "%d pages"


def test_an_invalid_setting_is_a_record(processes: Processes) -> None:
    for process in (
        processes.start_worker(timeout="soon", log_format=""),
        processes.start_api(0, timeout="soon", log_format="xml"),
    ):
        assert process.wait() == os.EX_CONFIG
        (line,) = records(process.output)
        assert "PREDICTOR_TIMEOUT: " in line["message"]


def test_a_heartbeat_that_cannot_go_on_says_so() -> None:
    command = [sys.executable, "-m", "predictor.store.heartbeat"]
    fields = json.dumps({"log": ["json", "info"]})
    done = subprocess.run(command, input=fields, capture_output=True, text=True, check=False)
    (line,) = records(done.stderr)
    assert "TypeError" in line["exc_info"]


def test_a_model_that_configures_logging_takes_no_line_away(processes: Processes) -> None:
    settings = {"model": "tests.models.meddles:predict", "log_format": "json", "lease": 1}
    api, worker = processes.api(**settings), processes.worker(**settings)
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "a model")
    ids = [api.predict(f"sync {n}").headers["x-request-id"] for n in range(120)]
    assert len(set(ids)) == 120
    id_, failed = api.submit("async"), api.submit("odd")
    assert api.outcome(id_).status_code == 200
    assert api.outcome(failed).status_code == 500
    assert api.client.get("/health/workers").json()["workers"] == 1
    eventually(lambda: len(of(records(worker.output), "predictor.predictions")) == 2, "two ends")
    begun = of(records(api.process.output), "model.stdout")
    assert [each["message"] for each in begun if "sync" in each["message"]] == [
        f"begun sync {n}" for n in range(120)
    ]
    assert [each["request_id"] for each in begun[:120]] == ids
    (line,) = eventually(lambda: of(records(worker.output), "arq.worker"), "the failure's line")
    assert "OddError" in line["exc_info"]
    assert "heartbeat process ended" not in worker.output


def test_a_model_may_change_the_folder(processes: Processes, tmp_path: Path) -> None:
    """Processes that start later find what was found from the folder of the start."""
    (tmp_path / "code").mkdir()
    lines = ["import os, pathlib, sys", "os.chdir('/')", "sys.path.append(pathlib.Path('/x'))"]
    lines += ["def predict(text: str) -> str:", "    os._exit(3)"]
    (tmp_path / "code" / "moves.py").write_text("\n".join(lines))
    api = processes.api(model="moves:predict", runs_in="process", PYTHONPATH="code")
    for _ in range(5):  # each in a process of its own
        eventually(lambda: api.predict("a").status_code == 500, "a run")


def test_what_is_printed_cannot_exhaust_the_memory() -> None:
    """A long line is cut, one without an end is logged, a flood waits for its reader."""
    program = (
        "import re\n"
        "for _ in range(64): print('x' * 2**20, end='')\n"
        "for _ in range(2000): print('flood')\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    found = _run(program)
    assert max(len(each["message"]) for each in found) <= 8192
    assert sum(each["message"].count("x") for each in found) == 64 * 2**20
    assert int(found[-1]["message"]) < 100_000  # KB


def test_print_s_stream_is_a_file_like_any() -> None:
    found = _run(
        "import os, sys\n"
        "sys.stdout.buffer.write(b'by\\xc3\\xa9tes\\n\\r\\n')\n"
        "assert not sys.stdout.isatty() and sys.stdout.fileno() == 1\n"
        "assert sys.stdout.encoding == 'utf-8' and sys.stdout.writable()\n"
        "print('surrogate \\udc80')\n"
        "print('flushed', end='', flush=True)\n"
        "print('50 %', end='\\r')\n"
        "print('unfinished', end='')\n"
    )
    texts = ["byétes", "surrogate \\udc80", "flushed", "50 %", "unfinished"]
    assert [each["message"] for each in found] == texts


def _shown(error: BaseException) -> str:
    formatter = logs._Json()
    info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", 40, "", 0, "failed", (), info)
    text: str = json.loads(formatter.format(record))["exc_info"]
    return text


def test_errors_of_the_store_and_of_types_show_no_values() -> None:
    """Whether they are the error, its cause, or in a group."""
    value = "".join(["ses", "ame"])  # a traceback shows this line
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(int).validate_python(value, strict=True)
    refused = ResponseError(f"unknown command 'SET', with args beginning with: {value!r}")
    invalid, caused = raised.value, ModelFailed()
    caused.__cause__ = invalid
    for error in (refused, invalid, caused, ExceptionGroup("both", [refused, invalid])):
        text = _shown(error)
        assert "sesame" not in text
        assert "ResponseError" in text or "Input should be a valid integer" in text


def test_a_failed_task_s_error_is_not_in_the_message(capfd: pytest.CaptureFixture[str]) -> None:
    found = _run(
        "import asyncio, gc, logging\n"
        "class ResponseError(Exception): __module__ = 'redis.exceptions'\n"
        "async def fail(): raise ResponseError('ses' 'ame')\n"
        "async def main():\n"
        "    task = asyncio.create_task(fail())\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main()); gc.collect()\n"
    )
    assert [each["message"] for each in found] == ["Task exception was never retrieved"]
    assert "sesame" not in str(found)
