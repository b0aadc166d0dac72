import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from predictor.config import Config
from predictor.errors import Expired, NoWebhook, UnknownPrediction
from predictor.prediction import Job, Json, Output, PredictionId, State, encode, new_id
from predictor.store import keys
from predictor.store.claims import Claim, Claims
from predictor.store.predictions import Predictions
from predictor.store.renewal import Renewal
from predictor.store.retry import StoreRetry

Workers = Callable[..., Claims]


@pytest.fixture
async def predictions(redis_url: str) -> AsyncIterator[Predictions]:
    async with Predictions(Config(redis_url=redis_url, queue_ttl=100)) as opened:
        yield opened


@pytest.fixture
async def worker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workers]:
    """Makes the claims of one worker after another; they wait for work a tenth as long."""
    monkeypatch.setattr("predictor.store.claims._WAIT", 0.1)
    async with Redis.from_url(redis_url) as client:

        def make(name: str = "w", *, slots: int = 10, lease: float = 10) -> Claims:
            config = Config(lease=lease, result_ttl=100)
            return Claims(config, StoreRetry(client), name, lambda: slots)

        yield make


async def _submit(predictions: Predictions, count: int) -> list[PredictionId]:
    ids = [new_id() for _ in range(count)]
    for id_ in ids:
        await predictions.submit(id_, Job(encode(f"text of {id_}")))
    return ids


def _output(text: str) -> Output:
    return Output(encode(text), Json(b'"out"'))


@asynccontextmanager
async def _renewing(url: str, claims: Claims) -> AsyncIterator[None]:
    renewal = Renewal(Config(redis_url=url, lease=claims._config.lease), claims, lambda ids: None)
    await renewal.start(1)
    try:
        yield
    finally:
        await renewal.stop()


async def _until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _recover(claims: Claims) -> list[Claim]:
    """What `claims` gets once it is sure that nobody comes back for it."""
    while not (found := await claims.claim()):
        pass
    return found


async def test_a_prediction_is_claimed_once_in_the_order_of_submission(
    predictions: Predictions, worker: Workers
) -> None:
    ids = await _submit(predictions, 5)
    one, two = worker("one", slots=3), worker("two", slots=3)
    assert [claim.id for claim in await one.claim()] == ids[:3]
    assert [claim.id for claim in await two.claim()] == ids[3:]
    assert not await one.claim()


async def test_its_life_as_clients_see_it(predictions: Predictions, worker: Workers) -> None:
    (id_,) = await _submit(predictions, 1)
    claims = worker()

    async def state() -> State:
        prediction = await predictions.read(id_)
        return prediction.state

    assert await state() is State.QUEUED
    (claim,) = await claims.claim()
    assert await state() is State.RUNNING
    await claims.finish(claim, _output("text"))
    read = await predictions.read(id_)
    assert (read.state, read.output) == (State.SUCCEEDED, Output(encode("text"), Json(b'"out"')))
    assert not claims.held


async def test_an_unknown_id_is_an_error(predictions: Predictions) -> None:
    for name in ("read", "look", "cancel", "erase"):
        with pytest.raises(UnknownPrediction):
            await getattr(predictions, name)(new_id())
    for name in ("webhook", "redeliver"):
        with pytest.raises(NoWebhook):
            await getattr(predictions, name)(new_id())


async def test_submitting_again_changes_nothing_in_any_state(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    claims = worker()
    for _ in range(2):
        await predictions.submit(id_, Job(encode("another text")))
    assert store.zcard(keys.QUEUE) == 1
    (claim,) = await claims.claim()
    await predictions.submit(id_, Job(encode("another text")))
    assert b"another" not in (claim.job or b"")
    await claims.finish(claim, _output("text"))
    await predictions.submit(id_, Job(encode("another text")))
    assert not await worker("two").claim()


async def test_fifty_submits_of_one_id_at_once_are_one(
    predictions: Predictions, store: "redis.Redis"
) -> None:
    id_ = new_id()
    await asyncio.gather(*(predictions.submit(id_, Job(encode("text"))) for _ in range(50)))
    assert store.zcard(keys.QUEUE) == 1


async def test_what_a_dead_worker_held_comes_back_ahead_of_younger_ones(
    predictions: Predictions, worker: Workers
) -> None:
    old = await _submit(predictions, 3)
    assert len(await worker("dead", lease=0.3).claim()) == 3
    alive = worker("alive", lease=0.6)
    assert await alive.claim() == []
    young = await _submit(predictions, 3)
    await asyncio.sleep(0.31)
    claims = await _recover(alive)
    assert [claim.id for claim in claims] == old + young
    assert [claim.tries for claim in claims] == [2, 2, 2, 1, 1, 1]


async def test_a_renewed_lease_does_not_run_out_even_if_the_loop_is_held(
    predictions: Predictions, worker: Workers, redis_url: str
) -> None:
    await _submit(predictions, 1)
    holder = worker("holder", lease=0.3)
    await holder.claim()
    async with _renewing(redis_url, holder):
        time.sleep(1)  # noqa: ASYNC251 (as a careless model does)
        assert not await worker("other").claim()


async def test_a_lease_that_ran_out_untaken_is_taken_again(
    predictions: Predictions, worker: Workers, redis_url: str
) -> None:
    await _submit(predictions, 1)
    holder = worker("holder", lease=0.3)
    await holder.claim()
    await asyncio.sleep(0.35)
    async with _renewing(redis_url, holder):
        other = worker("other", lease=0.3)
        for _ in range(6):
            assert await other.claim() == []


async def test_a_lease_that_another_has_is_left_to_it(
    predictions: Predictions, worker: Workers, redis_url: str, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    late = worker("late", lease=0.3)
    await late.claim()
    await _recover(worker("other", lease=1.5))
    async with _renewing(redis_url, late):
        await _until(lambda: store.get(keys.TRIES + id_) == b"1")  # its worker lives: no death
    assert "late" not in str(store.get(keys.IN_PROGRESS + id_))


async def test_the_first_finisher_wins(predictions: Predictions, worker: Workers) -> None:
    (id_,) = await _submit(predictions, 1)
    frozen, quick = worker("frozen", lease=0.3), worker("quick", lease=0.5)
    (late,) = await frozen.claim()
    (early,) = await _recover(quick)
    await quick.finish(early, _output("quick"))
    await frozen.finish(late, _output("frozen"))
    read = await predictions.read(id_)
    assert read.output == Output(encode("quick"), Json(b'"out"'))
    assert not frozen.held


async def test_given_back_it_keeps_its_place_and_its_tries(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    ids = await _submit(predictions, 3)
    leaving = worker("leaving", slots=2)
    claims = await leaving.claim()
    await leaving.requeue(*(claim.id for claim in claims))
    assert not store.keys("arq:in-progress:*")
    assert not store.keys("arq:retry:*")
    again = await worker("next").claim()
    assert [(claim.id, claim.tries) for claim in again] == [(id_, 1) for id_ in ids]


async def test_what_is_given_back_can_be_claimed_anew_at_once(
    predictions: Predictions, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same worker, too, whose claim is answered before its giving back is."""
    (id_,) = await _submit(predictions, 1)
    claims = worker()
    await claims.claim()
    again: list[Claim] = []
    run = claims.retry.scripts.run

    async def answered_late(name: str, *args: Any, **options: Any) -> Any:
        reply = await run(name, *args, **options)
        if name == "requeue":
            again.extend(await claims._claim_due())
        return reply

    monkeypatch.setattr(claims.retry.scripts, "run", answered_late)
    await claims.requeue(id_)
    assert [(claim.id, claim.tries) for claim in again] == [(id_, 1)]
    assert list(claims.held) == [id_]


async def test_what_was_finished_while_a_call_was_repeated_is_not_claimed_anew(
    predictions: Predictions, worker: Workers
) -> None:
    """The reply to a repeated call names all that is held, and may come after that of a finish."""
    done, returned, kept = await _submit(predictions, 3)
    claims = worker()
    claim, *_ = await claims.claim()
    late = await claims._claim(5, is_repeat=True)
    await claims.finish(claim, _output("text"))
    await claims.requeue(returned)
    lost = claims.held.pop(kept)  # as if the reply to the call that is repeated had not come
    assert lost.token == claim.token, "claims of one millisecond share their token"
    assert [again.id for again in claims._hold(late)] == [kept]
    assert claim.id == done
    assert list(claims.held) == [kept]


async def test_what_was_given_back_is_not_renewed(
    predictions: Predictions, worker: Workers, redis_url: str, store: "redis.Redis"
) -> None:
    """A renewal that was under way meanwhile must not take it again."""
    (id_,) = await _submit(predictions, 1)
    leaving = worker("leaving", lease=0.3)
    (claim,) = await leaving.claim()
    await leaving.requeue(id_)
    store.hset(keys.HELD + "leaving", id_, claim.token)  # as if that had not been seen
    async with _renewing(redis_url, leaving):
        await _until(lambda: not store.exists(keys.HELD + "leaving"))
    assert not store.exists(keys.IN_PROGRESS + id_)
    assert [claim.id for claim in await worker("next").claim()] == [id_]


async def test_what_another_worker_has_is_not_given_back(
    predictions: Predictions, worker: Workers
) -> None:
    await _submit(predictions, 1)
    late = worker("late", lease=0.3)
    (claim,) = await late.claim()
    await _recover(worker("other", lease=1.5))
    await late.requeue(claim.id)
    assert not await worker("third").claim()


async def test_a_waiting_worker_is_woken_by_a_submit(
    predictions: Predictions, worker: Workers
) -> None:
    waiting = asyncio.create_task(worker().claim())
    await asyncio.sleep(0.02)
    started = time.monotonic()
    (id_,) = await _submit(predictions, 1)
    assert [claim.id for claim in await waiting] == [id_]
    assert time.monotonic() - started < 0.2


async def test_what_was_just_submitted_is_due(predictions: Predictions, worker: Workers) -> None:
    """To the microsecond: a claim in the same millisecond finds it."""
    claims = worker(slots=1000)
    for _ in range(200):
        (id_,) = await _submit(predictions, 1)
        assert [claim.id for claim in await claims._claim_due()] == [id_]


async def test_a_full_worker_waits_for_a_slot(predictions: Predictions, worker: Workers) -> None:
    ids = await _submit(predictions, 2)
    claims = worker(slots=1)
    (first,) = await claims.claim()
    waiting = asyncio.create_task(claims.claim())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await claims.finish(first, _output("x"))
    assert [claim.id for claim in await waiting] == ids[1:]


@pytest.mark.parametrize("slots", [0, 1])
async def test_a_wait_ends_at_once_when_the_worker_leaves(worker: Workers, slots: int) -> None:
    claims = worker(slots=slots)
    waiting = asyncio.create_task(claims.claim())
    await asyncio.sleep(0.05)
    started = time.monotonic()
    claims.stop_claiming(1)
    assert await waiting == []
    with pytest.raises(asyncio.CancelledError):
        await claims.claim()
    assert time.monotonic() - started < 0.3


async def test_a_leaving_worker_claims_nothing(predictions: Predictions, worker: Workers) -> None:
    await _submit(predictions, 1)
    claims = worker()
    claims.stop_claiming(1)
    with pytest.raises(asyncio.CancelledError):
        await claims.claim()
    assert not claims.held


async def test_stale_wake_tokens_are_cleared(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    await _submit(predictions, 5)
    assert store.llen(keys.WAKE) == 5
    await worker().claim()
    assert not store.exists(keys.WAKE)


async def test_large_jobs_are_claimed_in_turns(predictions: Predictions, worker: Workers) -> None:
    for _ in range(3):
        await predictions.submit(new_id(), Job(encode("x" * 5_000_000)))
    claims = worker()
    assert [len(await claims.claim()) for _ in range(3)] == [1, 1, 1]


async def test_what_waited_too_long_is_expired_before_and_after_a_worker_saw_it(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    store.delete(keys.JOB + id_)
    read = await predictions.read(id_)
    assert isinstance(read.error, Expired)
    (claim,) = await worker().claim()
    assert claim.job is None
    assert claim.verdict == "expired"


async def test_a_job_does_not_expire_while_it_runs(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    await worker().claim()
    assert store.ttl(keys.JOB + id_) == -1


@pytest.mark.parametrize("id_", ["", "a b", "a\0b", "x" * 65, "arq:job:x", "\xff"])
async def test_what_cannot_be_an_id_is_dropped_from_the_queue(
    worker: Workers, store: "redis.Redis", id_: str
) -> None:
    store.zadd(keys.QUEUE, {id_: 1})
    assert await worker().claim() == []
    assert not store.zcard(keys.QUEUE)


async def test_keys_of_a_wrong_type_do_not_stop_the_claiming(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    wrong, right = await _submit(predictions, 2)
    store.delete(keys.JOB + wrong)
    store.lpush(keys.JOB + wrong, 1)
    store.lpush(keys.TRIES + right, 1)
    claims = await worker().claim()
    assert [(claim.id, claim.tries, claim.job is None) for claim in claims] == [
        (wrong, 0, True),
        (right, 1, False),
    ]


async def test_what_a_dead_worker_held_comes_back_though_the_claims_were_lost(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    await worker("dead", lease=0.3).claim()
    store.delete(keys.CLAIMED)
    assert [claim.id for claim in await _recover(worker("alive", lease=0.3))] == [id_]


async def test_a_plain_arq_worker_s_job_is_left_to_it(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    held, free = await _submit(predictions, 2)
    store.set(keys.IN_PROGRESS + held, 1, px=500)
    assert [claim.id for claim in await worker(slots=2).claim()] == [free]


async def test_scores_at_the_ends_of_the_scale_do_no_harm(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    early, never = await _submit(predictions, 2)
    store.zadd(keys.QUEUE, {early: "-inf", never: "+inf"})
    claims = worker()
    assert [claim.id for claim in await claims.claim()] == [early]
    assert (await predictions.read(early)).created == 0
    await claims.finish(claims.held[early], _output("early"))
    assert (await predictions.read(early)).created == 0
    await predictions.cancel(never)
    assert (await predictions.read(never)).state is State.CANCELED


async def test_estimates_are_of_what_ended_lately(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    then = time.time() - 700
    store.set(keys.TIMES, f"9 {then} {then - 60} 2 0 0 0")
    claims, ids = worker(slots=1), await _submit(predictions, 3)
    assert (await predictions.read(ids[2])).estimated_wait is None
    (claim,) = await claims.claim()
    await claims.finish(claim, _output("first"))
    assert 0.5 < ((await predictions.read(ids[2])).estimated_wait or 0) < 10


async def test_an_event_is_written_once_and_by_who_holds_it(
    predictions: Predictions, worker: Workers
) -> None:
    (id_,) = await _submit(predictions, 1)
    late, quick = worker("late", lease=0.3), worker("quick", lease=5)
    await late.claim()
    await late.emit(id_, 1, [("output", Json(b"1")), ("progress", Json(b"{}"))])
    await late.emit(id_, 1, [("output", Json(b"1")), ("progress", Json(b"{}"))])
    await late.emit(id_, 2, [("progress", Json(b"{}")), ("output", Json(b"2"))])
    await _recover(quick)
    await late.emit(id_, 4, [("output", Json(b"late"))])
    await quick.emit(id_, 1, [("output", Json(b"3"))])
    await quick.finish(quick.held[id_], _output("quick"))
    await late.emit(id_, 5, [("output", Json(b"later"))])
    events = await predictions.events(id_, "")
    assert [event.data for event in events if event.kind == "output"] == [b"1", b"2", b"3"]
    assert [event.kind for event in events][-1] == "completed"
    assert await predictions.events(id_, events[-2].id) == events[-1:]


async def test_a_run_that_another_followed_says_nothing_more(
    predictions: Predictions, worker: Workers, store: "redis.Redis"
) -> None:
    (id_,) = await _submit(predictions, 1)
    first, second = worker("first", lease=0.3), worker("second", lease=5)
    await first.claim()
    await first.emit(id_, 1, [("progress", Json(b'{"fraction":0.9,"message":""}'))])
    assert (await predictions.read(id_)).progress
    await _recover(second)
    await second.emit(id_, 1, [("output", Json(b"1"))])
    assert not (await predictions.read(id_)).progress, "it has begun anew"
    store.delete(keys.IN_PROGRESS + id_)  # the second lease is over, too
    await first.emit(id_, 2, [("output", Json(b"late"))])
    events = await predictions.events(id_, "")
    assert [event.data for event in events if event.kind == "output"] == [b"1"]
