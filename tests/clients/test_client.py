"""`predictor.client` against real processes, which are killed, and cut off, meanwhile."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from predictor import errors
from predictor.client import AsyncClient, AsyncPrediction, Client
from predictor.client.asynchronous import error_of
from tests.processes import ROOT, Api, Processes, eventually, free_port
from tests.test_commands import Proxy, _once

TALKS = "tests.models.talks:predict"


def _url(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"


@pytest.fixture
def client(slow: Api) -> Iterator[Client]:
    with Client(_url(slow)) as client:
        yield client


def _talking(processes: Processes) -> Api:
    api = processes.api(model=TALKS)
    processes.worker(model=TALKS)
    return api


def _restart(api: Api, processes: Processes) -> None:
    api.process.signal(signal.SIGKILL)
    api.process.wait()
    api.process = processes.start_api(api.port, model=TALKS)


def test_a_result_at_once_and_by_the_queue(client: Client) -> None:
    assert client.predict("0") == "0"
    prediction = client.submit("0.01")
    assert prediction.wait() == "0.01"
    assert prediction.output() == {"input": "0.01", "result": "0.01"}
    status = prediction.status()
    assert (status["status"], status["tries"], status["error"]) == ("succeeded", 1, None)
    assert client.prediction(prediction.id).wait(5) == "0.01"


def test_a_wait_that_times_out_and_a_cancel(client: Client) -> None:
    prediction = client.submit("30")
    with pytest.raises(TimeoutError):
        prediction.wait(0.1)
    assert prediction.cancel()["status"] in {"canceled", "canceling"}
    for ask in (prediction.wait, lambda: list(prediction.stream())):
        with pytest.raises(errors.Canceled, match="Prediction was canceled"):
            ask()
    ended = client.submit("0")
    ended.wait()
    with pytest.raises(errors.AlreadyEnded):
        ended.cancel()
    with pytest.raises(errors.TimedOut):
        client.predict("30", cancel_after=0.1)
    with pytest.raises(errors.TimedOut):
        list(client.stream("30", cancel_after=0.1))


def test_one_key_is_one_prediction(client: Client, tmp_path: Path) -> None:
    text = f"0 {tmp_path / 'starts'}"
    one, same = (client.submit(text, idempotency_key=tmp_path.name) for _ in range(2))
    assert one.id == same.id
    assert one.wait() == text
    assert (tmp_path / "starts").read_text().count("\n") == 1
    with pytest.raises(errors.KeyReused, match="used with another request"):
        client.submit("0", idempotency_key=tmp_path.name)


def test_refusals_have_the_class_and_message_of_the_service(client: Client) -> None:
    refused: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: client.predict(5), errors.InvalidInput, "Field 'input' must be"),
        (lambda: client.submit({"a": [1]}), errors.InvalidInput, "Field 'input' must be"),
        (lambda: list(client.stream(5)), errors.InvalidInput, "Field 'input' must be"),
        (lambda: client.predict(b"\0"), errors.UnsupportedMediaType, "Send the body as JSON"),
        (lambda: client.predict(object()), errors.InvalidInput, "The input is not JSON"),
        (lambda: client.predict(float("nan")), errors.InvalidJson, "The body is not valid JSON"),
        (lambda: client.predict("x" * 11_000_000), errors.BodyTooLarge, "larger than"),
        (lambda: client.submit("0", webhook_url="x"), errors.RequestError, "Webhook-Url"),
        (lambda: client.submit("0", cancel_after=-1), errors.RequestError, "Cancel-After"),
        (lambda: client.prediction("no/such").status(), errors.UnknownPrediction, "not found"),
        (lambda: list(client.prediction("x").events()), errors.UnknownPrediction, "not found"),
        (lambda: client.predict("not a number"), errors.ModelFailed, "The model failed on"),
        (client.submit("not a number").wait, errors.ModelFailed, "The model failed on"),
    ]
    for ask, kind, says in refused:
        with pytest.raises(errors.PredictorError, match=says) as raised:
            ask()
        assert raised.type is kind


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (504, "The prediction ran out of time (3 s).", errors.TimedOut),
        (504, str(errors.Expired()), errors.Expired),
        (500, str(errors.GivenUp()), errors.GivenUp),
        (500, "The model's result is larger than 9 bytes.", errors.ModelFailed),
        (500, "Something went wrong here; the log says what.", errors.PredictorError),
        (503, "The store cannot be used (it is away); try again.", errors.StoreUnavailable),
        (503, "The queue is full: 3 predictions wait; try again later.", errors.Overloaded),
        (422, "Not empty, please.", errors.InvalidInput),
        (401, str(errors.Unauthorized()), errors.Unauthorized),
        (403, "No.", errors.Forbidden),
        (451, "Illegal.", errors.RequestError),
    ],
)
def test_the_class_of_an_error(status: int, message: str, kind: type[Exception]) -> None:
    error = error_of(status, message)
    assert (type(error), str(error)) == (kind, message)


def test_an_api_that_is_away_or_another(slow: Api) -> None:
    with Client(f"http://me:sesame@127.0.0.1:{free_port()}", retry_for=0.3) as client:
        asks: list[Callable[[], object]] = [
            client.prediction("x").wait,
            lambda: client.predict("x"),
        ]
        for ask in asks:
            with pytest.raises(errors.Unreachable, match=r"no answer from 127"):
                ask()
    for url in ("127.0.0.1:8080", "ftp://x", f"{_url(slow)}/docs"):
        with Client(url) as client, pytest.raises(errors.Unreachable):
            client.predict("x")


def test_what_cannot_be_sent_is_refused_here(served: Api) -> None:
    for url in ("http://127.0.0.1:99999", "http://127.0.0.1:abc", "http://[::1"):
        with pytest.raises(errors.RequestError, match=r"^The URL of the API cannot be used: "):
            Client(url)
    with pytest.raises(errors.InvalidHeader, match=r"^Authorization must have printable") as caught:
        Client(api_key="sesame\nopen")
    assert "sesame" not in str(caught.value)
    with Client(_url(served)) as client:
        with pytest.raises(errors.InvalidHeader, match=r"^Idempotency-Key must have printable"):
            client.submit("x", idempotency_key="größe")
        with pytest.raises(errors.InvalidHeader, match=r"^Webhook-Url must have printable"):
            client.submit("x", webhook_url="https://exämple.com")


def test_an_input_on_which_a_check_fails_is_not_sent_again(processes: Processes) -> None:
    model = {"model": "tests.models.odd:checked"}
    api, worker = processes.api(**model), processes.worker(concurrency=1, **model)
    with Client(_url(api)) as client:
        for value in (0, 1):
            for ask in (client.predict, client.submit):
                with pytest.raises(errors.ModelFailed):
                    ask({"a": value})
        for ask in (client.predict, client.submit):
            with pytest.raises(errors.InvalidInput, match=r"^Not 9\.$"):
                ask({"a": 9})
        assert client.predict({"a": 2}) == 2
        with pytest.raises(errors.ModelFailed):
            client.submit({"a": 2}).wait(10)
        assert client.submit({"a": 3}).wait(10) == 3, "its slot is free"
    assert "KeyError: 'missing'" in worker.output


def test_the_defaults_are_of_the_environment(slow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_URL", f"{_url(slow)}/")
    monkeypatch.setenv("PREDICTOR_API_KEY", "a-key")
    with Proxy(slow, lambda _: False) as proxy:
        for key in (None, "another"):
            with Client(proxy.url, api_key=key) as client:
                assert client.predict("0") == "0"
    sent = [one for one in proxy.requests if one.startswith("POST")]
    assert "authorization: bearer a-key" in sent[0].lower()
    assert "authorization: bearer another" in sent[1].lower()
    with Client() as client:
        assert client.predict("0") == "0"


def test_files_and_pieces(processes: Processes) -> None:
    with Client(_url(processes.api(model="tests.models.files:reverse"))) as client:
        assert client.predict(b"\0\xff") == "/wA="
        assert client.predict("AP8=") == "/wA="
    with Client(_url(_talking(processes))) as client:
        assert list(client.stream("3")) == [0, 1, 2]
        prediction = client.submit("3")
        assert list(prediction.stream()) == [0, 1, 2]
        kinds = [event.kind for event in prediction.events()]
        assert (kinds.count("output"), kinds[0], kinds[-1]) == (3, "status", "completed")


def test_a_full_api_and_an_iterator_that_is_dropped(processes: Processes) -> None:
    api = processes.api(model=TALKS, concurrency=1)
    with Client(_url(api)) as client, Client(_url(api), retry_for=0.5) as impatient:
        for piece in client.stream("1000 0.05"):
            assert piece == 0
            with pytest.raises(errors.Overloaded, match="The only slot is taken") as raised:
                impatient.predict("0")
            assert raised.value.retry_after >= 1
            break
        assert client.predict("0")


def test_close_ends_what_others_wait_for(slow: Api, client: Client) -> None:
    with ThreadPoolExecutor() as threads:
        prediction = client.submit("30")
        waiting = threads.submit(prediction.wait)
        prediction.status()
        client.close()
        with pytest.raises((CancelledError, RuntimeError)):
            waiting.result()
    with Client(_url(slow)) as another:
        another.prediction(prediction.id).cancel()


def test_events_and_waits_survive_restarts_of_the_api(processes: Processes) -> None:
    api = _talking(processes)
    with Client(_url(api)) as client, ThreadPoolExecutor() as threads:
        prediction = client.submit("6 0.2")
        waiting, pieces = threads.submit(prediction.wait), []
        for piece in prediction.stream():
            pieces.append(piece)
            if piece == 1:
                _restart(api, processes)
        assert pieces == list(range(6))
        assert waiting.result() == prediction.id
        stream = client.stream("100 0.1")
        assert next(stream) == 0
        _restart(api, processes)
        with pytest.raises(errors.Unreachable, match=r"no answer|broke off"):
            list(stream)


def test_a_lost_response_to_a_submit_is_asked_for_again(slow: Api, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with Proxy(slow, _once(b"HTTP/1.1 202")) as proxy, Client(proxy.url) as client:
        assert client.submit(f"0 {starts}").wait() == f"0 {starts}"
    assert starts.read_text().count("\n") == 1
    with (
        Proxy(slow, _once(b"HTTP/1.1 200")) as proxy,
        Client(proxy.url) as client,
        pytest.raises(errors.Unreachable),
    ):
        client.predict(f"0 {starts}")
    assert starts.read_text().count("\n") == 2


async def test_many_tasks_share_a_client(slow: Api) -> None:
    async with AsyncClient(_url(slow)) as client:
        predictions = await asyncio.gather(*(client.submit(f"0.{n}") for n in range(9)))
        assert await asyncio.gather(*map(AsyncPrediction.wait, predictions)) == [
            f"0.{n}" for n in range(9)
        ]


def test_threads_share_a_client(client: Client) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(client.predict, ["0.5"] * 20)) == ["0.5"] * 20
    assert time.monotonic() - began < 5
    client.close()
    client.close()


def test_ctrl_c_ends_the_call_and_the_program(slow: Api, tmp_path: Path) -> None:
    """Also of a client that nobody closes; the run is canceled."""
    path = tmp_path / "starts"
    program = f"from predictor.client import Client; Client({_url(slow)!r}).predict('30 {path}')"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=ROOT)
    eventually(path.exists, "a start")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert stderr.rstrip().endswith(b"KeyboardInterrupt")


def test_types_are_for_users(client: Client) -> None:
    """mypy fails where it does not find these mistakes."""
    assert (ROOT / "predictor" / "py.typed").exists()
    with pytest.raises(TypeError):
        client.predict("0", cancel=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        client.submit("0").wait("a second")  # type: ignore[arg-type]
    state: str = client.submit("0").status()["status"]
    assert state
