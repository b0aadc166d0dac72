"""The api's side of the store: submit, read, cancel, erase. Fails within two silent seconds."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from predictor.errors import (
    AlreadyEnded,
    Canceled,
    Expired,
    KeyReused,
    NoWebhook,
    Overloaded,
    StillActive,
    StoreUnavailable,
    TimedOut,
    UnknownPrediction,
)
from predictor.prediction import (
    Event,
    Job,
    Prediction,
    PredictionId,
    State,
    Webhook,
)
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.retry import STORE_ERRORS, describe
from predictor.store.scripts import script
from predictor.store.server import check_room, check_server
from predictor.store.throughput import Throughput, until_end, until_place, until_start
from predictor.store.wire import (
    decode_ended,
    decode_event,
    decode_progress,
    decode_webhook,
    encode_job,
    encode_unrun,
)

#: Seconds of silence of the store after which it is not waited for.
_PATIENCE = 0.9

#: Bytes of a stored result that tell how its prediction ended, without a large input or output.
_HEAD: Final = 65536

#: Events that are read at once: a client that does not take them holds them in memory.
MOST_EVENTS: Final = 10

#: Connections of one process; a call takes a tenth of a millisecond.
_CONNECTIONS = 64


class Cancellation(StrEnum):
    """What became of the wish to cancel."""

    #: it waited: it will not be run
    CANCELED = "canceled"
    #: it runs: its worker has been told
    CANCELING = "canceling"


@dataclass(frozen=True, slots=True)
class Policy:
    """How the store treats what is submitted. Times in seconds."""

    queue_ttl: float = 604800
    result_ttl: float = 3600
    #: how many may wait; 0: any number
    queue_limit: int = 0
    #: replicas that must have a prediction before it is accepted
    wait_replicas: int = 0


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key of the client's, and what it asked for with it."""

    digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """A prediction that the store has."""

    id: PredictionId
    #: it was there before, with the same idempotency key
    is_replay: bool
    #: seconds until it is worth asking for the result
    retry_after: float


class Predictions:
    """Predictions as clients see them. Every method is one round trip and safe to repeat.

    They raise StoreUnavailable when the store did not confirm, and UnknownPrediction where it does
    not have the prediction.
    """

    def __init__(self, url: str, policy: Policy) -> None:
        self._redis: Redis = Redis(
            connection_pool=connection_pool(
                url,
                at_most=_CONNECTIONS,
                silence=_PATIENCE,
                socket_connect_timeout=_PATIENCE,
                # A connection from before a restart of the store fails once; its successor works.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
                retry_on_error=[RedisConnectionError],
            ),
        )
        self._policy = policy
        self._submit = self._redis.register_script(script("submit"))
        self._read = self._redis.register_script(script("read"))
        self._cancel = self._redis.register_script(script("cancel"))
        self._erase = self._redis.register_script(script("erase"))
        self._redeliver = self._redis.register_script(script("redeliver"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose(close_connection_pool=True)

    async def submit(
        self, id_: PredictionId, job: Job, key: IdempotencyKey | None = None
    ) -> Submitted:
        """Put a prediction into the queue, or find the one that has its idempotency key.

        Raises Overloaded when too many wait, KeyReused when the key belongs to another request.
        """
        policy, takes = self._policy, job.cancel_after
        args: list[Any] = [id_, encode_job(job, _now_ms())]
        args += [max(1, round(takes * 1000)) if takes else "", round(policy.queue_ttl * 1000)]
        args += [policy.queue_limit, *((key.digest, key.fingerprint) if key else ("", ""))]
        args += [job.webhook or "", keys.lives(policy.result_ttl)[1]]
        if policy.wait_replicas:
            reply = await self._submit_to_replicas(id_, args, is_repeatable=bool(key))
        else:
            reply = await self._run(self._submit, args)
        what, known_id, now_ms, place, *throughput_fields = reply
        throughput = Throughput.read(now_ms, throughput_fields)
        match what:
            case b"full":
                raise Overloaded(
                    f"The queue is full: {policy.queue_limit} predictions wait; try again later.",
                    retry_after=until_place(throughput),
                )
            case b"mismatch":
                raise KeyReused
        retry_after = until_end(place, 0, throughput)
        return Submitted(PredictionId(known_id.decode()), what == b"replayed", retry_after)

    async def read(self, id_: PredictionId) -> Prediction:
        """The prediction as it is now."""
        return await self._look(id_, 0)

    async def look(self, id_: PredictionId) -> Prediction:
        """As `read`, but without the output of one that succeeded, however large that is."""
        return await self._look(id_, _HEAD)

    async def _look(self, id_: PredictionId, at_most: int) -> Prediction:
        reply = await self._run(self._read, [id_, at_most])
        match reply:
            case None:
                raise UnknownPrediction
            case [b"done", progress, bytes(data), size]:
                ended = decode_ended(id_, data, is_head=len(data) < size)
                return replace(ended, progress=decode_progress(progress))
        state, progress, *fields = reply
        return replace(_active(id_, state.decode(), fields), progress=decode_progress(progress))

    async def events(self, id_: PredictionId, after: str) -> list[Event]:
        """What happened to a prediction after the event `after`; MOST_EVENTS at most."""
        since = f"({after}" if after else "-"
        found: list[Any] = []
        with _confirmed(), contextlib.suppress(ResponseError):  # somebody overwrote it
            found = await self._redis.xrange(keys.EVENTS + id_, since, "+", count=MOST_EVENTS)
        return [event for each in found if (event := decode_event(*each))]

    async def cancel(self, id_: PredictionId) -> Cancellation:
        """End a prediction, or ask its worker to. Raises AlreadyEnded, unless it was canceled."""
        ends = [encode_unrun(why) for why in (Canceled(), Expired(), TimedOut())]
        args = [id_, *ends, *keys.lives(self._policy.result_ttl), _HEAD]
        match await self._run(self._cancel, args):
            case None:
                raise UnknownPrediction
            case [b"told"]:
                return Cancellation.CANCELING
            case [b"done", bytes(data)] if decode_ended(id_, data).state is not State.CANCELED:
                raise AlreadyEnded
        return Cancellation.CANCELED

    async def erase(self, id_: PredictionId) -> None:
        """Remove the input and the result of a prediction. Raises StillActive."""
        match await self._run(self._erase, [id_]):
            case None:
                raise UnknownPrediction
            case b"active":
                raise StillActive

    async def webhook(self, id_: PredictionId) -> Webhook:
        """The webhook of a prediction, and its attempts. Raises NoWebhook."""
        with _confirmed():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(keys.WEBHOOK + id_)
                pipe.zscore(keys.DELIVERIES, id_)
                fields, next_ms = await pipe.execute()
        if webhook := decode_webhook(fields, next_ms):
            return webhook
        raise NoWebhook

    async def redeliver(self, id_: PredictionId) -> None:
        """Have its webhook sent again. Raises NoWebhook, StillActive."""
        match await self._run(self._redeliver, [id_, keys.lives(self._policy.result_ttl)[1]]):
            case None:
                raise NoWebhook
            case b"active":
                raise StillActive("Prediction has not ended yet; its webhook is sent when it has.")

    async def check(self) -> None:
        """Return if the store takes what is written. Raises UnsuitableStore if it would lose it.

        It is tried: memory, disk, replicas and a fail-over can each be why it does not.
        """
        with _confirmed():
            info = await self._redis.info()
            check_server(info)
            check_room(info)
            await self._redis.set(keys.PROBE, "", px=1000)

    async def _submit_to_replicas(
        self, id_: PredictionId, args: list[Any], *, is_repeatable: bool
    ) -> Any:
        wanted = self._policy.wait_replicas
        with _confirmed():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(script("submit"), 0, *args)
                # Replicas are waited for on the connection that wrote.
                pipe.wait(wanted, round(_PATIENCE * 800))
                reply, replicas = await pipe.execute()
        if reply[0] in {b"accepted", b"replayed"} and replicas < wanted:
            if not is_repeatable:  # else its repetition finds it
                with contextlib.suppress(AlreadyEnded, UnknownPrediction):
                    await self.cancel(id_)
            raise StoreUnavailable(f"Only {replicas} of {wanted} replicas confirmed; try again.")
        return reply

    async def _run(self, lua: Any, args: list[Any]) -> Any:
        with _confirmed():
            return await lua(args=args)


def _active(id_: PredictionId, state: str, fields: list[Any]) -> Prediction:
    now_ms, turn, place, tries, holder, left_ms, *throughput_fields = fields
    throughput = Throughput.read(now_ms, throughput_fields)
    created = max(0.0, min(float(turn), now_ms)) / 1000
    count = int(tries) if tries.isdigit() else 0
    expires_in = left_ms / 1000 if left_ms >= 0 else None
    match state:
        case "late":
            error = TimedOut() if count else Expired()
            return Prediction(id_, State.TIMED_OUT, created, tries=count, error=error)
        case "queued":
            starts_in, retry_after = until_start(place, throughput), until_end(place, 0, throughput)
            return Prediction(
                id_,
                State.QUEUED,
                created,
                tries=count,
                position=place,
                estimated_wait=starts_in,
                retry_after=retry_after,
                expires_in=expires_in,
            )
    began = holder.rpartition(b":")[2]
    started = int(began) / 1000 if began.isdigit() else now_ms / 1000
    retry_after = until_end(0, now_ms / 1000 - started, throughput)
    return Prediction(
        id_,
        State.RUNNING,
        created,
        started,
        tries=count,
        retry_after=retry_after,
        expires_in=expires_in,
    )


def _now_ms() -> int:
    return round(time.time() * 1000)


@contextlib.contextmanager
def _confirmed() -> Iterator[None]:
    """Raise StoreUnavailable where the store did not confirm what was asked for."""
    try:
        yield
    except STORE_ERRORS as error:
        raise StoreUnavailable(
            f"The store cannot be used ({describe(error)}); try again."
        ) from error
