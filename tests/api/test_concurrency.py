import asyncio
import threading
import time

import httpx
import pytest

from predictor.api.concurrency import Slots
from predictor.errors import Overloaded
from tests.processes import Processes, eventually


async def test_who_finds_no_slot_is_told_when_one_will_be_free() -> None:
    slots = Slots(2, lambda: 0)
    async with slots.take(), slots.take():
        began = time.monotonic()
        with pytest.raises(Overloaded, match="All 2 slots are taken") as refused:
            async with slots.take():
                raise AssertionError("must not run")
        assert 0.9 < time.monotonic() - began < 1.5
        assert refused.value.retry_after > 0
    async with slots.take():
        pass


async def test_one_slot_is_spoken_of_in_the_singular() -> None:
    slots = Slots(1, lambda: 1)
    with pytest.raises(Overloaded, match="The only slot is taken"):
        async with slots.take():
            raise AssertionError("must not run")


async def test_a_short_wait_is_waited() -> None:
    slots = Slots(1, lambda: 0)
    order: list[int] = []

    async def use(number: int) -> None:
        async with slots.take():
            order.append(number)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_a_call_that_was_given_up_on_fills_a_slot() -> None:
    abandoned = 1
    slots = Slots(1, lambda: abandoned)
    with pytest.raises(Overloaded):
        async with slots.take():
            raise AssertionError("must not run")
    abandoned = 0
    async with slots.take():
        pass


async def test_who_waits_gets_the_slot_of_a_call_that_ends_late() -> None:
    abandoned = 1
    slots = Slots(1, lambda: abandoned)

    async def take() -> None:
        async with slots.take():
            pass

    waiting = asyncio.create_task(take())
    await asyncio.sleep(0.02)
    abandoned = 0
    await asyncio.wait_for(waiting, 0.5)


async def test_a_request_that_fails_gives_its_slot_back() -> None:
    slots = Slots(1, lambda: 0)
    with pytest.raises(ZeroDivisionError):
        async with slots.take():
            raise ZeroDivisionError
    async with slots.take():
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
