"""The api's side of the store: submit, read, cancel, erase. Fails within two silent seconds."""

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Final, NamedTuple, Self

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor import errors
from predictor.config import Config
from predictor.logs import log_unrun
from predictor.prediction import Event, Job, Prediction, PredictionId, State, Webhook
from predictor.store import keys, wire
from predictor.store.connection import check_server, connect
from predictor.store.retry import STORE_ERRORS, StoreRetry, describe
from predictor.store.scripts import script

_SILENCE = 0.9  # seconds of silence of the store after which a call fails
_RETRY_AFTER = 10.0  # seconds until a place in a full queue may be free, where nothing ended lately
#: Seconds: of the estimates, the longest; over which the count of ends decays, as in finish.lua.
_LONGEST, _DECAY = 3600.0, 60.0
_FRESH = 600.0  # seconds past the last end for which there are estimates, as in finish.lua
#: Bytes of a stored result that tell how its prediction ended, without a large input or output.
_HEAD: Final = 65536
#: Events that are read at once: a client that does not take them holds them in memory.
MOST_EVENTS: Final = 10
_CONNECTIONS = 64  # of one process; others wait
_WARN_EVERY, _EXPIRE_EVERY = 10.0, 1.0  # seconds

logger = logging.getLogger(__name__)


class Submitted(NamedTuple):
    id: PredictionId
    is_replay: bool  # it was there before, with the same idempotency key
    workers: int  # that are alive
    retry_after: float  # seconds until it should be read


class Predictions(contextlib.AbstractAsyncContextManager["Predictions"]):
    """Predictions as clients see them. Every method is one round trip and safe to repeat.

    They raise StoreUnavailable when the store did not confirm, and UnknownPrediction.
    """

    def __init__(self, config: Config) -> None:
        self._redis = connect(
            config.store_url,
            at_most=_CONNECTIONS,
            silence=_SILENCE,
            socket_connect_timeout=_SILENCE,
            # A connection from before a restart of the store fails once; its successor works.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            retry_on_error=[RedisConnectionError],
        )
        self._config = config
        self._result_ttl = round(1000 * config.result_ttl)
        self._interval = 1000 / config.rate if config.rate else 0  # ms for each token of a name
        has_quotas = bool(config.rate or config.open)
        self._quotas = f"{self._interval} {config.burst} {config.open} " if has_quotas else ""
        self._retry = StoreRetry(self._redis)
        self._next_warning = 0.0

    async def __aenter__(self) -> Self:
        self._expiring = asyncio.create_task(self._expire_regularly())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._expiring.cancel()
        await asyncio.wait({self._expiring})
        await self._redis.aclose(close_connection_pool=True)

    async def submit(
        self, id_: PredictionId, job: Job, waiter: str = "", running: int = 0
    ) -> Submitted:
        """Put a prediction into the queue, or find the one that has its idempotency key.

        `waiter`: a channel that gets its result. `running`: how many sync ones the same name runs.
        Raises Overloaded for a full queue, TooManyRequests, and KeyReused when the key belongs to
        another request.
        """
        config, takes = self._config, job.cancel_after
        job = job._replace(model=config.model, model_version=config.model_version)
        args: list[Any] = [id_, wire.encode_job(job, round(time.time() * 1000))]
        args += [max(1, round(takes * 1000)) if takes else "", round(config.queue_ttl * 1000)]
        args += [config.queue_limit, job.key, job.fingerprint, job.webhook or ""]
        quotas = self._quotas and f"{self._quotas}{running}"
        args += [waiter, quotas, *["sync"] * (job.mode == "sync")]
        if config.wait_replicas:
            reply = await self._submit_to_replicas(id_, args, is_repeatable=bool(job.key))
        else:
            reply = await self.run("submit", *args)
        outcome, known_id, now_ms, place, times, workers = reply
        if outcome == b"mismatch":
            raise errors.KeyReused
        if outcome in {b"rate", b"open"}:
            seconds = place / 1000 if outcome == b"rate" else 1
            raise errors.TooManyRequests(retry_after=seconds, reason=outcome.decode())
        throughput = _Throughput.read(now_ms, times)
        if outcome == b"full":
            message = f"The queue is full: {config.queue_limit} predictions wait; try again later."
            raise errors.Overloaded(message, retry_after=throughput.until_start(1) or _RETRY_AFTER)
        self._warn_without(workers)
        known, seconds = PredictionId(known_id.decode()), throughput.until_end(place)
        return Submitted(known, outcome == b"replayed", workers, seconds)

    async def take(self, owner: str, most: int) -> tuple[int, float]:
        """Take up to `most` tokens of a name: how many, and the seconds until there is one more."""
        taken, wait = await self.run("take", owner, self._interval, self._config.burst, most)
        return taken, wait / 1000

    def _warn_without(self, workers: int) -> None:
        if not workers and time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + _WARN_EVERY
            logger.warning("predictions are queued, but no worker is alive")

    async def read(self, id_: PredictionId, *, at_most: int = sys.maxsize) -> Prediction:
        """The prediction as it is now; of a result, at most so many bytes are read."""
        reply = await self.run("read", id_, _HEAD)
        match reply:
            case [b"done", _, bytes(data), size] if len(data) < size <= at_most:
                reply = await self.run("read", id_, 0, is_large=True)
        match reply:
            case None:
                raise errors.UnknownPrediction
            case [b"done", progress, bytes(data), size]:
                ended = wire.decode_ended(id_, data, is_head=len(data) < size)
                known = wire.decode(wire.PROGRESS, progress)
                return replace(ended, progress=known) if known else ended
        return _active(id_, reply)

    async def look(self, id_: PredictionId) -> Prediction:
        """As `read`, but without the output of one that succeeded, if that is large."""
        return await self.read(id_, at_most=_HEAD)

    async def events(self, id_: PredictionId, after: str) -> list[Event]:
        """The events of a prediction after the event `after`; MOST_EVENTS at most."""
        first = min(int(after or 0), 2**31 - 2)  # Lua cuts a number off at 32 bits
        found = await self.run("events", id_, first, MOST_EVENTS, is_large=True)
        decoded = (wire.decode_event(*each) for each in enumerate(found, first + 1))
        return [event for event in decoded if event]

    async def cancel(self, id_: PredictionId) -> State:
        """CANCELED, or RUNNING until its worker ends it. Raises AlreadyEnded."""
        match await self.run("cancel", id_, self._result_ttl, _HEAD):
            case None:
                raise errors.UnknownPrediction
            case [b"canceling"]:
                return State.RUNNING
            case [bytes(), bytes(data), *modes]:
                ended = wire.decode_ended(id_, data)
                for mode in modes:  # one, if it ended by this call
                    log_unrun(ended, mode.decode())
                if ended.state is not State.CANCELED:
                    raise errors.AlreadyEnded
        return State.CANCELED

    async def erase(self, id_: PredictionId) -> None:
        """Remove the input and the result of a prediction. Raises StillActive."""
        match await self.run("erase", id_):
            case None:
                raise errors.UnknownPrediction
            case b"active":
                raise errors.StillActive
            case [bytes(data), bytes(mode)]:
                log_unrun(wire.decode_ended(id_, data), mode.decode())

    async def expire(self) -> bool:
        """End what was not run in time: it counts as queued until then. Returns whether it did."""
        ended = await self.run("expire", self._result_ttl)
        for name, data, mode in ended:
            log_unrun(wire.decode_ended(PredictionId(name.decode()), data), mode.decode())
        return bool(ended)

    async def _expire_regularly(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_EVERY)
            with contextlib.suppress(errors.StoreUnavailable):
                while await self.expire():  # a few at a time
                    pass

    async def webhook(self, id_: PredictionId) -> Webhook:
        """The webhook of a prediction, and its attempts. Raises NoWebhook."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.WEBHOOK + id_)
            pipe.zscore(keys.DELIVERIES, id_)
            fields, next_ms = await self._confirmed(pipe.execute())
        if webhook := wire.decode_webhook(fields, next_ms):
            return webhook
        raise errors.NoWebhook

    async def redeliver(self, id_: PredictionId) -> None:
        """Have its webhook sent again. Raises NoWebhook, and StillActive."""
        match await self.run("redeliver", id_, self._result_ttl):
            case None:
                raise errors.NoWebhook
            case b"active":
                message = "Prediction has not ended yet; its webhook is sent when it has."
                raise errors.StillActive(message)

    async def check(self) -> None:
        """Write to the store, to see that it can be. Raises UnsuitableStore if it would lose it."""
        info = await self._confirmed(self._redis.info())
        check_server(info)
        used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
        if most and used > 0.95 * most:  # too full for some predictions
            text = f"The store's memory is full ({used} of {most} bytes are used)."
            raise errors.StoreUnavailable(text)
        replicas, wanted = info.get("connected_slaves", 0), self._config.wait_replicas
        if replicas < wanted:
            text = f"The store has {replicas} of {wanted} replicas that must confirm."
            raise errors.StoreUnavailable(text)
        await self._confirmed(self._redis.set(keys.PROBE, "", px=1000))

    async def _submit_to_replicas(
        self, id_: PredictionId, args: list[Any], *, is_repeatable: bool
    ) -> Any:
        wanted = self._config.wait_replicas
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.eval(script("submit"), 0, *args)
            # Replicas are waited for on the connection that wrote.
            pipe.wait(wanted, round(_SILENCE * 800))
            reply, replicas = await self._confirmed(pipe.execute())
        if replicas >= wanted or reply[0] not in {b"accepted", b"replayed"}:
            return reply
        if not is_repeatable:  # else its repetition finds it
            with contextlib.suppress(errors.AlreadyEnded, errors.UnknownPrediction):
                await self.cancel(id_)
        raise errors.StoreUnavailable(f"Only {replicas} of {wanted} replicas confirmed; try again.")

    async def run(self, name: str, *args: Any, is_large: bool = False) -> Any:
        """What the script `name` returns; `is_large`: as in AsyncScripts."""
        return await self._confirmed(self._retry.scripts.run(name, *args, is_large=is_large))

    async def _confirmed(self, reply: Awaitable[Any]) -> Any:
        """The reply. Raises StoreUnavailable where the store did not confirm a command."""
        try:
            confirmed = await reply
        except STORE_ERRORS as error:
            self._retry.failed(error)
            message = f"The store cannot be used ({describe(error)}); try again."
            raise errors.StoreUnavailable(message) from error
        self._retry.recovered()
        return confirmed


class _Throughput(NamedTuple):
    """How fast predictions end, and what follows for those that wait. Times in seconds."""

    per_second: float  # 0: unknown
    run: float  # how long a prediction runs

    @classmethod
    def read(cls, now_ms: int, times: bytes) -> "_Throughput":
        """From TIMES, as a script returns it."""
        now = now_ms / 1000
        try:
            count, at, since, run = map(float, times.split()[:4])
        except ValueError:
            return cls(0, 0)
        if now - at > _FRESH:
            return cls(0, 0)
        # Over less than a second there is no throughput to speak of.
        share = 1 - math.exp(min(since - now, -1) / _DECAY)
        per_second = count * math.exp(min(at - now, 0) / _DECAY) / (_DECAY * share)
        return cls(per_second if 0 < per_second < math.inf else 0, max(run, 0.0))

    def until_start(self, place: int) -> float | None:
        """Until the prediction at `place` in the queue, 0 the first, starts; None: unknown."""
        return min(place / self.per_second, _LONGEST) if self.per_second else None

    def until_end(self, place: int, ran: float = 0) -> float:
        """Until a prediction should be read that has run for `ran`, or is at `place`."""
        start = self.until_start(place)
        return 1.0 if start is None else min(start + max(self.run - ran, 0.0), _LONGEST)


def _active(id_: PredictionId, reply: list[Any]) -> Prediction:
    """A prediction that has not ended, from the reply of read.lua."""
    state, progress, now_ms, queued_at, place, tries, started_ms, left_ms, times, terms = reply
    created, started = max(0.0, min(float(queued_at), now_ms)) / 1000, started_ms / 1000
    if state == b"late":
        error = errors.TimedOut() if tries else errors.Expired()
        return Prediction(id_, State.TIMED_OUT, created, tries=tries, error=error)
    throughput, is_queued = _Throughput.read(now_ms, times), state == b"queued"
    return Prediction(
        id_,
        State(state.decode()),
        created,
        started=None if is_queued else started,
        tries=tries,
        position=place if is_queued else None,
        estimated_wait=throughput.until_start(place) if is_queued else None,
        retry_after=throughput.until_end(place if is_queued else 0, now_ms / 1000 - started),
        expires_in=left_ms / 1000 if left_ms >= 0 else None,
        progress=wire.decode(wire.PROGRESS, progress),
        **(wire.decode(wire.MODEL, terms) or {}),
    )
