"""The conversation with arq 0.28: an upgrade that speaks otherwise must fail here first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from arq.worker import RetryJob, Worker, func
from redis.asyncio import Redis

from predictor.errors import InvalidInput
from predictor.prediction import Job, Json, PredictionId, State, new_id
from predictor.store import keys
from predictor.store.arq_redis import ClaimingRedis, _JobConversation
from predictor.store.claims import Claims, Terms
from predictor.store.connection import connection_pool
from predictor.store.patience import Patience
from predictor.store.predictions import Policy, Predictions


class Recorder(ClaimingRedis):
    """Writes down what arq asks."""

    def __init__(self, url: str) -> None:
        pool = connection_pool(url)
        super().__init__(pool, Patience())
        self.asked: list[list[str]] = []
        terms = Terms(worker="w", lease=10, result_ttl=100, max_tries=3)
        self.claims = Claims(Redis(connection_pool=pool), Patience(), terms, lambda: 10)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        conversation = super().pipeline(transaction, shard_hint)
        if not isinstance(conversation, _JobConversation):
            return conversation
        asked: list[str] = []
        self.asked.append(asked)

        class Recorded:
            async def __aenter__(self) -> "Recorded":
                return self

            async def __aexit__(self, *_: object) -> None:
                pass

            def __getattr__(self, name: str) -> Any:
                asked.append(name)
                return getattr(conversation, name)

        return Recorded()


@pytest.fixture
async def recorder(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    monkeypatch.setattr("predictor.store.claims._WAIT", 0.1)
    recorder = Recorder(redis_url)
    yield recorder
    await recorder.aclose(close_connection_pool=True)


@pytest.fixture
async def predictions(redis_url: str) -> AsyncIterator[Predictions]:
    async with Predictions(redis_url, Policy(queue_ttl=100)) as opened:
        yield opened


async def _run(recorder: Recorder, job: Any) -> None:
    worker = Worker(
        [func(job, name="predict")],
        redis_pool=recorder,
        job_serializer=recorder.job_serializer,
        job_deserializer=recorder.job_deserializer,
        job_timeout=None,  # type: ignore[arg-type]
        burst=True,
        poll_delay=0.001,
        handle_signals=False,
    )
    await worker.async_run()


START = ["watch", "exists", "zscore", "multi", "psetex", "execute"]
READ = ["get", "incr", "expire", "execute"]


async def _submit(predictions: Predictions) -> PredictionId:
    id_ = new_id()
    await predictions.submit(id_, Job("text"))
    return id_


async def test_a_job_that_succeeds(recorder: Recorder, predictions: Predictions) -> None:
    seen: list[Any] = []

    async def job(ctx: dict[str, Any], text: str) -> bytes:
        seen.append((ctx["job_id"], ctx["job_try"], str(text)))
        return Json(b'"out"')

    id_ = await _submit(predictions)
    await _run(recorder, job)
    assert seen == [(id_, 1, "text")]
    assert recorder.asked == [START, READ, ["set", "zrem", "zrem", "delete", "execute"]]
    read = await predictions.read(id_)
    assert read
    assert read.state is State.SUCCEEDED


async def test_a_job_that_fails(recorder: Recorder, predictions: Predictions) -> None:
    async def job(_: dict[str, Any], __: str) -> bytes:
        raise InvalidInput("no")

    id_ = await _submit(predictions)
    await _run(recorder, job)
    assert recorder.asked[2] == ["set", "zrem", "zrem", "delete", "execute"]
    read = await predictions.read(id_)
    assert read
    assert isinstance(read.error, InvalidInput)


async def test_a_job_that_is_to_run_again(recorder: Recorder, predictions: Predictions) -> None:
    tries: list[int] = []

    async def job(ctx: dict[str, Any], _: str) -> bytes:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise RetryJob
        return Json(b"1")

    await _submit(predictions)
    await _run(recorder, job)
    assert recorder.asked[2] == ["delete", "execute"]
    assert tries == [1, 1, 1], "a try that was given back does not count"


@pytest.mark.parametrize("damage", ["gone", "corrupt", "other function"])
async def test_a_job_that_cannot_be_run(
    recorder: Recorder, predictions: Predictions, store: "redis.Redis", damage: str
) -> None:
    async def job(_: dict[str, Any], __: str) -> bytes:
        raise AssertionError("must not run")

    id_ = await _submit(predictions)
    match damage:
        case "gone":
            store.delete(keys.JOB + id_)
        case "corrupt":
            store.set(keys.JOB + id_, b"\x80\x04N.")
        case _:
            store.set(keys.JOB + id_, b'{"t":null,"f":"other","a":["x"],"k":{},"et":1}')
    await _run(recorder, job)
    assert recorder.asked[2] == ["delete", "zrem", "zrem", "set", "execute"]
    read = await predictions.read(id_)
    assert read
    assert read.state is (State.TIMED_OUT if damage == "gone" else State.FAILED)
    assert not store.exists(keys.QUEUE)


async def test_what_arq_does_not_take_up_is_offered_again(
    recorder: Recorder, predictions: Predictions
) -> None:
    id_ = await _submit(predictions)
    assert await recorder.zrangebyscore("q") == [id_.encode()]
    assert await asyncio.wait_for(recorder.zrangebyscore("q"), 5) == [id_.encode()]
    assert len(recorder.claims.held) == 1


async def test_another_command_is_an_error_at_once(recorder: Recorder) -> None:
    with pytest.raises(AttributeError):
        recorder.pipeline(transaction=True).hgetall("key")
