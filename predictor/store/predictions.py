"""The api's side of the store: submit, read, cancel. Fails within two seconds rather than wait."""

import time
from enum import StrEnum
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from predictor.errors import AlreadyEnded, Canceled, Expired, Overloaded, StoreUnavailable
from predictor.prediction import Output, Prediction, PredictionId, State
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.patience import TROUBLE, describe
from predictor.store.scripts import script
from predictor.store.server import check_server
from predictor.store.wire import decode_result, encode_canceled, encode_job

#: Seconds that the store has for one answer.
_PATIENCE = 0.9

#: Connections of one process; a call takes a tenth of a millisecond.
_CONNECTIONS = 64

#: Seconds to wait before a full queue is asked again: where nothing ended lately, and at most.
_RETRY_UNKNOWN, _RETRY_MOST = 10.0, 600.0


class Cancellation(StrEnum):
    """What became of the wish to cancel."""

    #: it waited: it will not be run
    GONE = "canceled"
    #: it runs: its worker has been told
    TOLD = "canceling"


class Predictions:
    """Predictions as clients see them. Every method is one round trip and safe to repeat.

    They raise StoreUnavailable when the store did not confirm.
    """

    def __init__(
        self,
        url: str,
        *,
        queue_ttl: float,
        result_ttl: float = 3600,
        queue_limit: int = 0,
        wait_replicas: int = 0,
    ) -> None:
        """Times in seconds; `queue_limit` 0: any number; `wait_replicas`: before it is accepted."""
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
        self._queue_ttl_ms = round(queue_ttl * 1000)
        self._result_ttl_ms = round(result_ttl * 1000)
        self._queue_limit = queue_limit
        self._wait_replicas = wait_replicas
        self._submit = self._redis.register_script(script("submit"))
        self._read = self._redis.register_script(script("read"))
        self._cancel = self._redis.register_script(script("cancel"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose(close_connection_pool=True)

    async def submit(self, id_: PredictionId, text: str) -> None:
        """Put a prediction on `text` into the queue: when this returns, the store has it.

        Raises Overloaded when too many wait.
        """
        submit_keys = [keys.QUEUE, keys.LEASES, keys.JOB + id_, keys.RESULT + id_]
        submit_keys += [keys.WAKE, keys.PACE]
        job = encode_job(text, time.time_ns() // 10**6)
        args = [id_, job, self._queue_ttl_ms, self._queue_limit]
        if self._wait_replicas:
            reply = await self._submit_to_replicas(id_, submit_keys, args)
        else:
            reply = await self._run(self._submit, submit_keys, args)
        if not reply[0]:
            pace = float(reply[1]) if reply[1] else _RETRY_UNKNOWN
            raise Overloaded(
                f"The queue is full: {self._queue_limit} predictions wait; try again later.",
                retry_after=min(pace, _RETRY_MOST),
            )

    async def read(self, id_: PredictionId) -> Prediction | None:
        """The prediction as it is now; None if the store does not know it."""
        read_keys = [keys.QUEUE, keys.JOB + id_, keys.IN_PROGRESS + id_, keys.RESULT + id_]
        match await self._run(self._read, read_keys, [id_]):
            case None:
                return None
            case [b"done", bytes(data)]:
                outcome = decode_result(data)
            case [b"expired"]:
                outcome = Expired()
            case [state]:
                return Prediction(id_, State(state.decode()))
        if isinstance(outcome, Output):
            return Prediction(id_, State.SUCCEEDED, output=outcome)
        return Prediction(id_, State.FAILED, error=outcome)

    async def cancel(self, id_: PredictionId) -> Cancellation | None:
        """End a prediction, or ask its worker to; None if the store does not know it.

        Raises AlreadyEnded. Canceling what was canceled is no error.
        """
        cancel_keys = [keys.QUEUE, keys.LEASES, keys.TURNS, keys.CANCELS, keys.JOB + id_]
        cancel_keys += [keys.IN_PROGRESS + id_, keys.TRIES + id_, keys.RESULT + id_]
        result = encode_canceled(id_, time.time_ns() // 10**6)
        args = [id_, result, self._result_ttl_ms, keys.TOLD]
        match await self._run(self._cancel, cancel_keys, args):
            case None:
                return None
            case [b"told"]:
                return Cancellation.TOLD
            case [b"done", bytes(data)] if not isinstance(decode_result(data), Canceled):
                raise AlreadyEnded
        return Cancellation.GONE

    async def check(self) -> None:
        """Return if the store answers and can be trusted. Raises UnsuitableStore if it cannot."""
        try:
            info = await self._redis.info()
        except TROUBLE as error:
            raise _unavailable(error) from error
        check_server(info)

    async def _submit_to_replicas(
        self, id_: PredictionId, submit_keys: list[str], args: list[Any]
    ) -> Any:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(script("submit"), len(submit_keys), *submit_keys, *args)
                # Replicas are waited for on the connection that wrote.
                pipe.wait(self._wait_replicas, round(_PATIENCE * 800))
                reply, replicas = await pipe.execute()
        except TROUBLE as error:
            raise _unavailable(error) from error
        if reply[0] and replicas < self._wait_replicas:
            await self.cancel(id_)
            raise StoreUnavailable(
                f"Only {replicas} of {self._wait_replicas} replicas confirmed; try again."
            )
        return reply

    async def _run(self, lua: Any, script_keys: list[str], args: list[Any]) -> Any:
        try:
            return await lua(keys=script_keys, args=args)
        except TROUBLE as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The store cannot be used ({describe(error)}); try again.")
