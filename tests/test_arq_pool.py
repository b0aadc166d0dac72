"""The conversation with arq 0.28: an upgrade that speaks otherwise must fail here first."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.worker import RetryJob, Worker, func

from predictor.config import Config
from predictor.errors import InvalidInput, PredictionError
from predictor.prediction import Job, Json, Output, PredictionId, encode, new_id
from predictor.store.claims import Claims
from predictor.store.connection import connect
from predictor.store.predictions import Predictions
from predictor.store.retry import StoreRetry
from predictor.worker.arq_pool import ClaimingRedis


class Recorder(ClaimingRedis):
    """Writes down what arq asks."""

    def __init__(self, url: str) -> None:
        retry = StoreRetry(connect(url))
        super().__init__(Claims(Config(result_ttl=100), retry, "w", lambda: 10))
        self.asked: list[list[str]] = []

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        conversation = super().pipeline(transaction, shard_hint)
        if not transaction:
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
    async with Predictions(Config(redis_url=redis_url, queue_ttl=100)) as opened:
        yield opened


async def _run(recorder: Recorder, job: Any) -> None:
    worker = Worker(
        [func(job, name="predict")],
        redis_pool=recorder,
        job_deserializer=recorder.job_deserializer,
        job_timeout=None,  # type: ignore[arg-type]
        keep_result=0,
        burst=True,
        poll_delay=0.001,
        handle_signals=False,
    )
    await worker.async_run()


START = ["watch", "exists", "zscore", "multi", "psetex", "execute"]
READ = ["get", "incr", "expire", "execute"]
END = ["zrem", "zrem", "delete", "execute"]


async def _submit(predictions: Predictions) -> PredictionId:
    id_ = new_id()
    await predictions.submit(id_, Job(encode("text")))
    return id_


@pytest.mark.parametrize("outcome", [Output(encode("text"), Json(b'"out"')), InvalidInput("no")])
async def test_finished_job(
    recorder: Recorder, predictions: Predictions, outcome: Output | PredictionError
) -> None:
    seen: list[Any] = []

    async def job(ctx: dict[str, Any]) -> None:
        seen.append(ctx["job_id"])
        await recorder.claims.finish(recorder.claims.held[ctx["job_id"]], outcome)
        if isinstance(outcome, PredictionError):
            raise outcome

    id_ = await _submit(predictions)
    await _run(recorder, job)
    assert seen == [id_]
    assert recorder.asked == [START, READ, END]
    read = await predictions.read(id_)
    assert (read.output or repr(read.error)) in {outcome, repr(outcome)}


async def test_requeued_job(recorder: Recorder, predictions: Predictions) -> None:
    tries: list[int] = []

    async def job(ctx: dict[str, Any]) -> None:
        claim = recorder.claims.held[ctx["job_id"]]
        tries.append(claim.tries)
        if len(tries) < 3:
            await recorder.claims.requeue(claim.id)
            raise RetryJob
        await recorder.claims.finish(claim, Output(encode("text"), Json(b"1")))

    await _submit(predictions)
    await _run(recorder, job)
    assert ["delete", "execute"] in recorder.asked
    assert tries == [1, 1, 1], "a try that was given back does not count"


async def test_all_claims_are_started_before_one_runs(
    recorder: Recorder, predictions: Predictions
) -> None:
    started: list[int] = []

    async def job(ctx: dict[str, Any]) -> None:
        started.append(recorder.asked.count(START))
        claim = recorder.claims.held[ctx["job_id"]]
        await recorder.claims.finish(claim, Output(encode("text"), Json(b"1")))

    for _ in range(5):
        await _submit(predictions)
    await _run(recorder, job)
    assert started == [5] * 5


async def test_unknown_command_raises(recorder: Recorder) -> None:
    with pytest.raises(AttributeError):
        recorder.pipeline(transaction=True).hgetall("key")
