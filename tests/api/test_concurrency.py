import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from predictor.api.limits import Slots
from predictor.errors import Overloaded
from tests.processes import Processes, eventually


@asynccontextmanager
async def _taken(slots: Slots) -> AsyncIterator[None]:
    await slots.take()
    try:
        yield
    finally:
        slots.give_back(0.01)


async def test_no_free_slot_is_a_503_with_retry_after() -> None:
    slots = Slots(lambda: 2, lambda: 0)
    async with _taken(slots), _taken(slots):
        began = time.monotonic()
        with pytest.raises(Overloaded, match="All 2 slots are taken") as refused:
            async with _taken(slots):
                raise AssertionError("must not run")
        assert 0.9 < time.monotonic() - began < 1.5
        assert refused.value.retry_after > 0
    async with _taken(slots):
        pass


async def test_the_message_for_one_slot_is_in_the_singular() -> None:
    slots = Slots(lambda: 1, lambda: 1)
    with pytest.raises(Overloaded, match="The only slot is taken"):
        async with _taken(slots):
            raise AssertionError("must not run")


async def test_requests_wait_briefly_for_a_slot() -> None:
    slots = Slots(lambda: 1, lambda: 0)
    order: list[int] = []

    async def use(number: int) -> None:
        async with _taken(slots):
            order.append(number)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_an_abandoned_call_fills_a_slot() -> None:
    abandoned = 1
    slots = Slots(lambda: 1, lambda: abandoned)
    with pytest.raises(Overloaded):
        async with _taken(slots):
            raise AssertionError("must not run")
    abandoned = 0
    async with _taken(slots):
        pass


async def test_the_slot_of_an_abandoned_call_is_freed_when_it_ends() -> None:
    abandoned = 1
    slots = Slots(lambda: 1, lambda: abandoned)

    async def take() -> None:
        async with _taken(slots):
            pass

    waiting = asyncio.create_task(take())
    await asyncio.sleep(0.02)
    abandoned = 0
    await asyncio.wait_for(waiting, 0.5)


async def test_a_failed_request_frees_its_slot() -> None:
    slots = Slots(lambda: 1, lambda: 0)
    with pytest.raises(ZeroDivisionError):
        async with _taken(slots):
            raise ZeroDivisionError
    async with _taken(slots):
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
