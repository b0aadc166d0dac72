import asyncio
import threading

import pytest

from predictor.errors import ModelFailed
from predictor.model.run import Emitter, Events
from predictor.prediction import EventKind, Json


class Sink:
    """Takes what an emitter has: what arrived, and when."""

    def __init__(self) -> None:
        self.emitter = Emitter()
        self.received: Events = []
        self.calls = 0
        self.times: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self._task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        while events := await self.emitter.take():
            self.calls += 1
            await self.open.wait()
            self.received += events
            self.times += [
                asyncio.get_running_loop().time() for kind, _ in events if kind == "progress"
            ]

    async def close(self) -> None:
        self.emitter.close()
        await self._task


@pytest.fixture
async def sink() -> Sink:
    return Sink()


async def test_outputs_from_a_thread_arrive_in_order(sink: Sink) -> None:
    emitter = sink.emitter

    def emit_all() -> None:
        for number in range(1000):
            emitter.emit(EventKind.OUTPUT, Json(b"%d" % number))

    thread = threading.Thread(target=emit_all)
    thread.start()
    await asyncio.to_thread(thread.join)
    await sink.close()
    assert [data for _, data in sink.received] == [b"%d" % number for number in range(1000)]


async def test_progress_is_coalesced_and_the_last_is_sent(sink: Sink) -> None:
    emitter = sink.emitter
    for number in range(60):
        emitter.emit(EventKind.PROGRESS, Json(b"%d" % number))
        await asyncio.sleep(0.005)
    emitter.emit(EventKind.PROGRESS, Json(b"last"))
    await sink.close()
    gaps = [later - earlier for earlier, later in zip(sink.times, sink.times[1:], strict=False)]
    assert len(gaps) >= 2
    assert min(gaps[:-1]) >= 0.1, "but for the last"
    assert sink.received[-1] == (EventKind.PROGRESS, b"last")


async def test_close_waits_for_events_under_way(sink: Sink) -> None:
    emitter = sink.emitter
    sink.open.clear()
    emitter.emit(EventKind.OUTPUT, Json(b"1"))
    await asyncio.sleep(0)
    emitter.emit(EventKind.OUTPUT, Json(b"2"))
    ending = asyncio.create_task(sink.close())
    await asyncio.sleep(0.01)
    assert not ending.done()
    sink.open.set()
    await ending
    assert [data for _, data in sink.received] == [b"1", b"2"]


async def test_events_after_close_are_ignored(sink: Sink) -> None:
    emitter = sink.emitter
    await sink.close()
    emitter.emit(EventKind.OUTPUT, Json(b"1"))
    await sink.close()
    assert not sink.received


async def test_outputs_are_sent_in_batches(sink: Sink) -> None:
    emitter = sink.emitter
    for number in range(2500):
        emitter.emit(EventKind.OUTPUT, Json(b"%d" % number))
    await sink.close()
    assert sink.calls == 3
    assert len(sink.received) == 2500


async def test_output_that_is_not_taken_is_bounded() -> None:
    emitter = Emitter()
    piece = Json(b"x" * 2**20)
    for _ in range(65):
        emitter.emit(EventKind.OUTPUT, piece)
    with pytest.raises(ModelFailed, match="faster than it is taken"):
        emitter.emit(EventKind.OUTPUT, piece)
    taken = await emitter.take()
    assert sum(len(data) for _, data in taken) <= 9 * 2**20
    emitter.emit(EventKind.OUTPUT, piece)


async def test_a_take_ends_in_time() -> None:
    emitter = Emitter()
    assert await emitter.take(0.01) == []
    emitter.emit(EventKind.PROGRESS, Json(b"1"))
    assert await emitter.take(0.01) == [(EventKind.PROGRESS, b"1")]
    emitter.emit(EventKind.PROGRESS, Json(b"2"))
    assert await emitter.take(0.01) == []
    assert await emitter.take(1) == [(EventKind.PROGRESS, b"2")]
