"""The api's side of the store: submit, read, cancel, erase. Fails within two seconds."""

import contextlib
import math
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from predictor.delivery import Webhook
from predictor.errors import (
    AlreadyEnded,
    Canceled,
    Expired,
    KeyReused,
    Overloaded,
    StillActive,
    StoreUnavailable,
)
from predictor.prediction import (
    Event,
    Job,
    Prediction,
    PredictionId,
    State,
)
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.pace import Pace, until_end, until_place, until_start
from predictor.store.patience import TROUBLE, describe
from predictor.store.scripts import script
from predictor.store.server import check_server
from predictor.store.wire import (
    decode_ended,
    decode_event,
    decode_progress,
    decode_result,
    decode_webhook,
    encode_job,
    encode_unrun,
)

#: Seconds that the store has for one answer.
_PATIENCE = 0.9

#: Events that are read at once: a client that does not take them holds them in memory.
MOST_EVENTS: Final = 10

#: Connections of one process; a call takes a tenth of a millisecond.
_CONNECTIONS = 64


class Cancellation(StrEnum):
    """What became of the wish to cancel."""

    #: it waited: it will not be run
    GONE = "canceled"
    #: it runs: its worker has been told
    TOLD = "canceling"


@dataclass(frozen=True, slots=True)
class Policy:
    """How the store treats what is submitted. Times in seconds."""

    queue_ttl: float = 604800
    result_ttl: float = 3600
    #: how many may wait; 0: any number
    queue_limit: int = 0
    #: replicas that must have a prediction before it is accepted
    wait_replicas: int = 0
    #: how long all runs of one may take
    runs: float = 3600


@dataclass(frozen=True, slots=True)
class Twin:
    """What makes two requests the same: a key of the client's, and what it asked for."""

    key_digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """A prediction that the store has."""

    id: PredictionId
    #: it was there before: the answer to its idempotent twin
    is_replay: bool
    #: seconds until it is worth asking for the result
    ask_in: float


class Predictions:
    """Predictions as clients see them. Every method is one round trip and safe to repeat.

    They raise StoreUnavailable when the store did not confirm.
    """

    def __init__(self, url: str, policy: Policy) -> None:
        self._redis: Redis = Redis(
            connection_pool=connection_pool(
                url,
                at_most=_CONNECTIONS,
                socket_timeout=_PATIENCE,
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

    async def submit(self, id_: PredictionId, job: Job, twin: Twin | None = None) -> Submitted:
        """Put a prediction into the queue, or find its twin: when this returns, the store has it.

        Raises Overloaded when too many wait, KeyReused when the key belongs to another request.
        """
        submit_keys = [keys.QUEUE, keys.LEASES, keys.WAKE, keys.PACE, keys.EVENTS + id_]
        submit_keys += [keys.WEBHOOK + id_, keys.IDEMPOTENCY + twin.key_digest if twin else ""]
        submit_keys.append(keys.DELIVERIES)
        policy = self._policy
        waits = min(policy.queue_ttl, job.cancel_after or math.inf)
        lives = policy.queue_ttl + policy.runs + policy.result_ttl
        args: list[Any] = [id_, encode_job(job, _now_ms()), max(1, round(waits * 1000))]
        args += [policy.queue_limit, twin.fingerprint if twin else "", round(lives * 1000)]
        args += [job.webhook or "", keys.JOB, keys.RESULT]
        if policy.wait_replicas:
            reply = await self._submit_to_replicas(id_, submit_keys, args, is_repeatable=bool(twin))
        else:
            reply = await self._run(self._submit, submit_keys, args)
        what, known_id, now_ms, place, *pace_fields = reply
        pace = Pace.read(now_ms, pace_fields)
        match what:
            case b"full":
                raise Overloaded(
                    f"The queue is full: {policy.queue_limit} predictions wait; try again later.",
                    retry_after=until_place(pace),
                )
            case b"mismatch":
                raise KeyReused
        ask_in = until_end(place, 0, pace)
        return Submitted(PredictionId(known_id.decode()), what == b"replayed", ask_in)

    async def read(self, id_: PredictionId) -> Prediction | None:
        """The prediction as it is now; None if the store does not know it."""
        read_keys = [keys.QUEUE, keys.TURNS, keys.JOB + id_, keys.IN_PROGRESS + id_]
        read_keys += [keys.TRIES + id_, keys.RESULT + id_, keys.PACE, keys.RUN + id_]
        reply = await self._run(self._read, read_keys, [id_])
        match reply:
            case None:
                return None
            case [b"done", progress, bytes(data)]:
                return replace(decode_ended(id_, data), progress=decode_progress(progress))
        state, progress, *fields = reply
        return replace(_active(id_, state.decode(), fields), progress=decode_progress(progress))

    async def events(self, id_: PredictionId, after: str) -> list[Event]:
        """What happened to a prediction after the event `after`; MOST_EVENTS at most."""
        since = f"({after}" if after else "-"
        try:
            found = await self._redis.xrange(keys.EVENTS + id_, since, "+", count=MOST_EVENTS)
        except ResponseError:  # somebody overwrote it
            return []
        except TROUBLE as error:
            raise _unavailable(error) from error
        return [event for each in found if (event := decode_event(*each))]

    async def cancel(self, id_: PredictionId) -> Cancellation | None:
        """End a prediction, or ask its worker to; None if the store does not know it.

        Raises AlreadyEnded. Canceling what was canceled is no error.
        """
        canceled, expired = (encode_unrun(id_, why, _now_ms()) for why in (Canceled(), Expired()))
        args = [id_, canceled, *keys.lives(self._policy.result_ttl), keys.TOLD, expired]
        match await self._run(self._cancel, keys.to_settle(id_), args):
            case None:
                return None
            case [b"told"]:
                return Cancellation.TOLD
            case [b"done", bytes(data)] if not isinstance(decode_result(data).outcome, Canceled):
                raise AlreadyEnded
        return Cancellation.GONE

    async def erase(self, id_: PredictionId) -> bool:
        """Remove the input and the result of a prediction that has ended; False if there is none.

        Raises StillActive.
        """
        erase_keys = [keys.QUEUE, keys.DELIVERIES, keys.IN_PROGRESS + id_, keys.JOB + id_]
        erase_keys += [keys.TRIES + id_, keys.RESULT + id_, keys.EVENTS + id_, keys.RUN + id_]
        erase_keys.append(keys.WEBHOOK + id_)
        outcome = await self._run(self._erase, erase_keys, [id_])
        if outcome == b"active":
            raise StillActive
        return outcome is not None

    async def webhook(self, id_: PredictionId) -> Webhook | None:
        """Who is told of a prediction's end, and what came of it; None if nobody is."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(keys.WEBHOOK + id_)
                pipe.zscore(keys.DELIVERIES, id_)
                fields, next_ms = await pipe.execute()
        except TROUBLE as error:
            raise _unavailable(error) from error
        return decode_webhook(fields, next_ms)

    async def redeliver(self, id_: PredictionId) -> bool:
        """Have its webhook sent again; False if there is none. Raises StillActive."""
        redeliver_keys = [keys.DELIVERIES, keys.DELIVER, keys.WEBHOOK + id_]
        kept = keys.lives(self._policy.result_ttl)[1]
        outcome = await self._run(self._redeliver, redeliver_keys, [id_, kept])
        if outcome == b"active":
            raise StillActive("Prediction has not ended yet; its webhook is sent when it has.")
        return outcome is not None

    async def check(self) -> None:
        """Return if the store answers and can be trusted. Raises UnsuitableStore if it cannot."""
        try:
            info = await self._redis.info()
        except TROUBLE as error:
            raise _unavailable(error) from error
        check_server(info)

    async def _submit_to_replicas(
        self, id_: PredictionId, submit_keys: list[str], args: list[Any], *, is_repeatable: bool
    ) -> Any:
        wanted = self._policy.wait_replicas
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(script("submit"), len(submit_keys), *submit_keys, *args)
                # Replicas are waited for on the connection that wrote.
                pipe.wait(wanted, round(_PATIENCE * 800))
                reply, replicas = await pipe.execute()
        except TROUBLE as error:
            raise _unavailable(error) from error
        if reply[0] in {b"accepted", b"replayed"} and replicas < wanted:
            if not is_repeatable:  # else its repetition finds it
                with contextlib.suppress(AlreadyEnded):
                    await self.cancel(id_)
            raise StoreUnavailable(f"Only {replicas} of {wanted} replicas confirmed; try again.")
        return reply

    async def _run(self, lua: Any, script_keys: list[str], args: list[Any]) -> Any:
        try:
            return await lua(keys=script_keys, args=args)
        except TROUBLE as error:
            raise _unavailable(error) from error


def _active(id_: PredictionId, state: str, fields: list[Any]) -> Prediction:
    now_ms, turn, place, tries, holder, expires_ms, *pace_fields = fields
    pace = Pace.read(now_ms, pace_fields)
    created = max(0.0, min(float(turn), now_ms)) / 1000
    count = int(tries) if tries.isdigit() else 0
    match state:
        case "expired":
            return Prediction(id_, State.TIMED_OUT, created, tries=count, error=Expired())
        case "queued":
            starts_in, ask_in = until_start(place, pace), until_end(place, 0, pace)
            return Prediction(
                id_,
                State.QUEUED,
                created,
                tries=count,
                place=place,
                starts_in=starts_in,
                ask_in=ask_in,
                expires_in=max(0, expires_ms) / 1000,
            )
    began = holder.rpartition(b":")[2]
    started = int(began) / 1000 if began.isdigit() else now_ms / 1000
    ask_in = until_end(0, now_ms / 1000 - started, pace)
    return Prediction(id_, State.RUNNING, created, started, tries=count, ask_in=ask_in)


def _now_ms() -> int:
    return round(time.time() * 1000)


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The store cannot be used ({describe(error)}); try again.")
