"""Nothing that a client sends or gets, and no secret, is in a log, a metric, an error or `ps`.

All of them contain one word, and so does nothing else. tests/canaries.py looks for what any other
test sends, too.
"""

import base64
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from predictor.config import Config
from tests import rights
from tests.command import running, serve
from tests.faults.conftest import Farm
from tests.models.secretive import SECRET
from tests.processes import UNMEASURED, Api, Process, Processes, eventually
from tests.webhooks.test_deliverer import Receiver

WORD = "c4n4ry"
KEY, PASSWORD, IDEMPOTENCY = f"{WORD}-of-an-api-key", f"{WORD}-of-the-store", f"{WORD}-idempotency"
SIGNING = "whsec_" + base64.b64encode(f"{WORD}-that-signs-a-webhook".encode()).decode()
WORDS = (WORD, SIGNING.removeprefix("whsec_"), base64.b64encode(WORD.encode()).decode()[:7])


def _settings(farm: Farm) -> dict[str, Any]:
    """With a user of the store that has the rights of README, and all secrets."""
    given = [part for part in rights.line() if not part.startswith(">")]
    farm.store.client.execute_command("ACL", "SETUSER", *given, "resetpass", f">{PASSWORD}")
    return {
        "redis_url": farm.store.url.replace("unix://", f"unix://predictor:{PASSWORD}@"),
        "api_keys": f"me:{KEY}",
        "webhook_secrets": SIGNING,
        "webhook_allow": "127.0.0.1",
        "model": "tests.models.secretive:predict",
        "log_level": "debug",
        "lease": 1,
    }


class Client:
    """Sends the word in all that it sends, and keeps what it is told in errors."""

    def __init__(self, api: Api) -> None:
        self._api, self.errors = api, list[str]()
        api.client.event_hooks = {"response": [self._keep]}

    def _keep(self, response: httpx.Response) -> None:
        if response.status_code >= 400 or response.request.url.path == "/metrics":
            self.errors.append(f"{response.headers} {response.read().decode(errors='replace')}")

    def ask(self, method: str, path: str, key: str = KEY, **options: Any) -> httpx.Response:
        given = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
        return self._api.client.request(method, path, headers=given, timeout=15, **options)

    def post(self, text: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/predict", json={"input": f"{text} {WORD}"}, headers=named)

    def submit(self, text: str, **headers: str) -> str:
        return str(self.post(text, Async_Mode="true", **headers).json()["prediction_id"])

    def read_all(self, id_: str) -> int:
        """Every endpoint of a prediction; returns the status of its result."""
        status = self.ask("GET", f"/predict/{id_}", headers={"Prefer": "wait=10"}).status_code
        for part in ("status", "events", "webhook"):
            self.ask("GET", f"/predict/{id_}/{part}")
        for method, part in (("POST", "/cancel"), ("POST", "/webhook")):
            self.ask(method, f"/predict/{id_}{part}")
        return status


def _drive(client: Client, receiver: Receiver) -> None:
    """Every endpoint, and every way to fail that needs no broken store."""
    for text, status in {"x": 200, "refuse": 422, "fail": 500, "nan": 500}.items():
        assert client.post(text).status_code == status
        assert client.read_all(client.submit(text)) == status
    hook = f"{receiver.url}?token={WORD}"
    told = client.submit("x", Webhook_Url=hook, Idempotency_Key=IDEMPOTENCY)
    assert client.submit("x", Webhook_Url=hook, Idempotency_Key=IDEMPOTENCY) == told
    assert client.post("y", Webhook_Url=hook, Idempotency_Key=IDEMPOTENCY).status_code == 422
    client.read_all(told)
    eventually(lambda: len(receiver.told) >= 2, "webhooks")  # one that failed, and its repetition
    unheard = client.submit("x", Webhook_Url=f"http://127.0.0.1:1/?token={WORD}")
    client.read_all(unheard)
    tried = lambda: client.ask("GET", f"/predict/{unheard}/webhook").json()["attempts"]  # noqa: E731
    eventually(tried, "an attempt")
    for refused in (f"http://10.0.0.1/{WORD}", f"ftp://x/{WORD}", WORD):
        assert client.post("x", Async_Mode="true", Webhook_Url=refused).status_code == 400
    client.ask("DELETE", f"/predict/{told}")
    canceled = client.submit("sleep")
    client.ask("POST", f"/predict/{canceled}/cancel")
    client.read_all(canceled)
    late = client.post("sleep", Prefer="wait=5", Cancel_After="100ms")
    assert late.status_code == 504
    for name in ("Async-Mode", "Cancel-After", "Idempotency-Key", "Last-Event-ID", "Webhook-Url"):
        client.post("x", **{name: f"\x7f{IDEMPOTENCY}"})


def _send_nonsense(client: Client) -> None:
    for body in (
        *(
            f'{{"input": "{WORD}',
            f'"{WORD}"',
            f'{{"input": ["{WORD}"]}}',
            f'{{"input": "{WORD}"}} x',
        ),
        *(
            f'{{"input": "{WORD}\\ud800"}}',
            f'{{"input": {{"text": "{WORD}", "run": 1}}}}',
            "[" * 999,
        ),
    ):
        content = {"Content-Type": "application/json"}
        answer = client.ask("POST", "/predict", content=body.encode(), headers=content)
        assert answer.status_code in {400, 422}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        client.ask("POST", "/predict", content=WORD.encode(), headers={"Content-Type": kind})
    utf_16 = {"Content-Type": "application/json"}
    client.ask("POST", "/predict", content=WORD.encode("utf-16"), headers=utf_16)
    for key in (f"{WORD}-of-nobody", f"me:{KEY}", f"{KEY}x", "x" * 5000 + WORD):
        client.ask("GET", "/predict/a", key=key)
        client.ask("GET", "/metrics", key=key)
    client.ask("GET", "/metrics")
    auth = f"Authorization: Bearer {KEY}\r\n".encode()
    for request in (
        *(
            b"GET / HTTP/1.1\r\nIdempotency-Key : %b\r\n%b\r\n",
            b"GET / HTTP/1.1\r\nX: %b\0\r\n%b\r\n",
        ),
        b"POST /predict HTTP/1.1\r\nContent-Length: %b\r\n%b\r\n",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: %b\r\n%b\r\n",
    ):
        status, body = client._api.raw((request % (WORD.encode(), auth)).rstrip())
        assert status >= 400
        client.errors.append(body)


def _break_the_store(farm: Farm, client: Client, worker: Process) -> None:
    """A submit meets each error of the store, and a result one."""
    store: Any = farm.store.client

    def submit_meanwhile() -> None:
        for text in ("x", "sleep"):
            client.post(text, Async_Mode="true", Idempotency_Key=f"{IDEMPOTENCY}-{time.time()}")
        client.ask("GET", "/predict/a")

    store.config_set("maxmemory", 1)
    submit_meanwhile()
    store.config_set("maxmemory", 0)
    store.rename("arq:queue", "arq:kept") if store.exists("arq:queue") else None
    store.set("arq:queue", "a string")
    submit_meanwhile()
    store.delete("arq:queue", "arq:kept")
    client.submit("sleep")
    farm.until_running(1)
    store.execute_command("ACL", "SETUSER", "predictor", "-@write", "-@scripting")
    submit_meanwhile()
    eventually(lambda: "NoPermissionError" in worker.output, "a result that cannot be stored")
    store.execute_command("ACL", "SETUSER", "predictor", "+@write", "+@scripting")
    store.execute_command("ACL", "SETUSER", "predictor", "resetpass", ">another")
    store.client_kill_filter(_type="normal", skipme=True)
    submit_meanwhile()
    store.execute_command("ACL", "SETUSER", "predictor", f">{PASSWORD}")
    farm.store.freeze()
    client.post("x", Async_Mode="true")
    farm.store.resume()
    farm.store.kill()
    client.post("x", Async_Mode="true")
    farm.store.start()
    _settings(farm)  # it has forgotten its users


def test_nothing_of_a_client_and_no_secret_is_told_to_others(farm: Farm) -> None:
    settings = _settings(farm)
    receiver = Receiver()
    receiver.answer = lambda count: (500 if count == 1 else 204, {})
    start = farm.processes.start
    try:
        api = farm.processes.api(**settings)
        worker = farm.processes.worker(**settings, **UNMEASURED)
        in_process = {"runs_in": "process", "spare": 0, "concurrency": 1, **UNMEASURED}
        webhooks = start("python", "-m", "predictor.webhooks", **settings, **UNMEASURED)
        client = Client(api)
        _drive(client, receiver)
        _send_nonsense(client)
        _break_the_store(farm, client, worker)
        assert worker.stop() == 0
        dying = farm.processes.worker(**settings | in_process)
        assert client.read_all(client.submit("exit")) == 500
    finally:
        receiver.close()
    processes: list[Process] = [api.process, worker, webhooks, dying]
    for process in processes:
        process.stop()
        assert process.output
        _assert_silent(process.output)
    assert len(client.errors) > 30
    _assert_silent("\n".join(client.errors))
    farm.store.client.flushall()


def _assert_silent(text: str) -> None:
    for line in text.splitlines():
        assert not [word for word in WORDS if word in line], line


def test_no_secret_is_in_the_list_of_processes(
    command: Processes, farm: Farm, tmp_path: Path
) -> None:
    settings = _settings(farm)
    api = serve(command, **settings)
    client = Client(api)
    client.submit("sleep")  # so that the heartbeat runs
    listed = running(tmp_path)
    assert len([line for line in listed if "predictor" in line]) >= 5, listed
    _assert_silent("\n".join(listed))
    api.process.stop()
    _assert_silent(api.process.output)
    farm.store.client.flushall()


def test_no_secret_is_in_what_a_setting_is_shown_as() -> None:
    url = f"redis://me:{PASSWORD}@host"
    config = Config(redis_url=url, api_keys=f"me:{KEY}", webhook_secrets=SIGNING)
    _assert_silent(f"{config!r} {config}")
    with pytest.raises(Exception, match="PREDICTOR_API_KEYS") as raised:
        Config(api_keys=f"{WORD}:{KEY} x", webhook_secrets=WORD, redis_url=url)
    _assert_silent(f"{raised.value!r} {raised.value}")


def test_the_words_are_what_they_seem() -> None:
    assert WORD in SECRET
