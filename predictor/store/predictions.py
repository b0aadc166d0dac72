"""The api's side of the store: submit and read. Fails within a second or two rather than wait."""

import time
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from predictor.errors import Expired, StoreUnavailable
from predictor.prediction import Output, Prediction, PredictionId, State
from predictor.store import keys
from predictor.store.connection import connection_pool
from predictor.store.scripts import script
from predictor.store.wire import decode_result, encode_job

#: Seconds that the store has for one answer.
_PATIENCE = 1.0


class Predictions:
    """Predictions as clients see them. Every method is one round trip and safe to repeat.

    They raise StoreUnavailable when the store did not confirm.
    """

    def __init__(self, url: str, *, queue_ttl: float) -> None:
        """`queue_ttl`: seconds that a prediction may wait in the queue."""
        self._redis: Redis = Redis(
            connection_pool=connection_pool(
                url,
                socket_timeout=_PATIENCE,
                socket_connect_timeout=_PATIENCE,
                # A connection from before a restart of the store fails once; its successor works.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            ),
        )
        self._queue_ttl_ms = round(queue_ttl * 1000)
        self._submit = self._redis.register_script(script("submit"))
        self._read = self._redis.register_script(script("read"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose(close_connection_pool=True)

    async def submit(self, prediction_id: PredictionId, text: str) -> None:
        """Put a prediction on `text` into the queue: when this returns, the store has it."""
        await self._run(
            self._submit,
            keys=[
                keys.QUEUE,
                keys.JOB + prediction_id,
                keys.RESULT + prediction_id,
                keys.WAKE,
            ],
            args=[prediction_id, encode_job(text, time.time_ns() // 10**6), self._queue_ttl_ms],
        )

    async def read(self, prediction_id: PredictionId) -> Prediction | None:
        """The prediction as it is now; None if the store does not know it."""
        reply = await self._run(
            self._read,
            keys=[
                keys.QUEUE,
                keys.JOB + prediction_id,
                keys.IN_PROGRESS + prediction_id,
                keys.RESULT + prediction_id,
            ],
            args=[prediction_id],
        )
        if reply is None:
            return None
        match reply:
            case [b"done", bytes(data)]:
                outcome = decode_result(data)
            case [b"expired"]:
                outcome = Expired()
            case [state]:
                return Prediction(prediction_id, State(state.decode()))
        if isinstance(outcome, Output):
            return Prediction(prediction_id, State.SUCCEEDED, output=outcome)
        return Prediction(prediction_id, State.FAILED, error=outcome)

    async def check(self) -> None:
        """Return if the store answers."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def _run(self, lua: Any, *, keys: list[str], args: list[Any]) -> Any:
        try:
            return await lua(keys=keys, args=args)
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable:
    # Its text may hold the command, and with it somebody's input: only the kind is told.
    return StoreUnavailable(f"The store cannot be used ({type(error).__name__}); try again.")
