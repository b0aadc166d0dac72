import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from predictor.api.limits import Limits
from predictor.config import Config
from predictor.errors import Overloaded
from predictor.model.model import Model
from tests.processes import Processes, eventually


class _Model:
    is_ready = True

    def __init__(self, count: int, abandoned: int = 0) -> None:
        self.count, self.abandoned = count, abandoned

    def slots(self, _: int) -> int:
        return self.count


def _limits(model: _Model) -> Limits:
    store: Any = None  # there is no limit of the rate
    return Limits(Config(), cast("Model", model), store)


@asynccontextmanager
async def _taken(limits: Limits) -> AsyncIterator[None]:
    await limits.take("")
    try:
        yield
    finally:
        limits.give_back("", 0.01)


async def test_no_free_slot_is_a_503_with_retry_after() -> None:
    limits = _limits(_Model(2))
    async with _taken(limits), _taken(limits):
        began = time.monotonic()
        with pytest.raises(Overloaded, match="All 2 slots are taken") as refused:
            async with _taken(limits):
                raise AssertionError("must not run")
        assert 0.9 < time.monotonic() - began < 1.5
        assert refused.value.retry_after > 0
    async with _taken(limits):
        pass


async def test_the_message_for_one_slot_is_in_the_singular() -> None:
    limits = _limits(_Model(1, abandoned=1))
    with pytest.raises(Overloaded, match="The only slot is taken"):
        async with _taken(limits):
            raise AssertionError("must not run")


async def test_requests_wait_briefly_for_a_slot() -> None:
    limits = _limits(_Model(1))
    order: list[int] = []

    async def use(number: int) -> None:
        async with _taken(limits):
            order.append(number)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_an_abandoned_call_fills_a_slot() -> None:
    model = _Model(1, abandoned=1)
    limits = _limits(model)
    with pytest.raises(Overloaded):
        async with _taken(limits):
            raise AssertionError("must not run")
    model.abandoned = 0
    async with _taken(limits):
        pass


async def test_the_slot_of_an_abandoned_call_is_freed_when_it_ends() -> None:
    model = _Model(1, abandoned=1)
    limits = _limits(model)

    async def take() -> None:
        async with _taken(limits):
            pass

    waiting = asyncio.create_task(take())
    await asyncio.sleep(0.02)
    model.abandoned = 0
    await asyncio.wait_for(waiting, 0.5)


async def test_a_failed_request_frees_its_slot() -> None:
    limits = _limits(_Model(1))
    with pytest.raises(ZeroDivisionError):
        async with _taken(limits):
            raise ZeroDivisionError
    async with _taken(limits):
        pass


def test_more_sync_requests_than_slots(processes: Processes) -> None:
    """As many as there are slots run, the others are refused within the short wait."""
    api = processes.api(model="tests.models.slow:predict", concurrency=3)
    answers: list[tuple[httpx.Response, float]] = []

    def ask() -> None:
        began = time.monotonic()
        answers.append((api.predict("2"), time.monotonic() - began))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [(answer, taken) for answer, taken in answers if answer.status_code == 503]
    assert len(refused) == 3
    for answer, taken in refused:
        assert answer.json()["error"].startswith("All 3 slots are taken")
        assert int(answer.headers["retry-after"]) >= 1
        assert taken < 1.8
    eventually(lambda: api.predict("0").status_code == 200, "a free slot")
