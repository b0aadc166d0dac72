import asyncio
import threading

import pytest

from predictor.errors import ModelFailed
from predictor.model.run import Emitter, Events
from predictor.prediction import EventKind, Json


class Sink:
    """Where an emitter ends: what arrived, when, and under which number."""

    def __init__(self) -> None:
        self.received: Events = []
        self.calls = 0
        self.times: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, first: int, events: Events) -> None:
        assert first == len(self.received) + 1
        self.calls += 1
        await self.open.wait()
        self.received += events
        self.times += [
            asyncio.get_running_loop().time() for kind, _ in events if kind == "progress"
        ]


@pytest.fixture
async def sink() -> Sink:
    return Sink()


async def test_outputs_from_a_thread_arrive_in_order(sink: Sink) -> None:
    emitter = Emitter(sink)

    def emit_all() -> None:
        for number in range(1000):
            emitter.emit(EventKind.OUTPUT, Json(b"%d" % number))

    thread = threading.Thread(target=emit_all)
    thread.start()
    await asyncio.to_thread(thread.join)
    await emitter.close()
    assert [data for _, data in sink.received] == [b"%d" % number for number in range(1000)]


async def test_progress_is_coalesced_and_the_last_is_sent(sink: Sink) -> None:
    emitter = Emitter(sink)
    for number in range(60):
        emitter.emit(EventKind.PROGRESS, Json(b"%d" % number))
        await asyncio.sleep(0.005)
    emitter.emit(EventKind.PROGRESS, Json(b"last"))
    await emitter.close()
    gaps = [later - earlier for earlier, later in zip(sink.times, sink.times[1:], strict=False)]
    assert len(gaps) >= 2
    assert min(gaps[:-1]) >= 0.1, "but for the last"
    assert sink.received[-1] == (EventKind.PROGRESS, b"last")


async def test_close_waits_for_events_under_way(sink: Sink) -> None:
    emitter = Emitter(sink)
    sink.open.clear()
    emitter.emit(EventKind.OUTPUT, Json(b"1"))
    await asyncio.sleep(0)
    emitter.emit(EventKind.OUTPUT, Json(b"2"))
    ending = asyncio.create_task(emitter.close())
    await asyncio.sleep(0.01)
    assert not ending.done()
    sink.open.set()
    await ending
    assert [data for _, data in sink.received] == [b"1", b"2"]


async def test_events_after_close_are_ignored(sink: Sink) -> None:
    emitter = Emitter(sink)
    await emitter.close()
    emitter.emit(EventKind.OUTPUT, Json(b"1"))
    await emitter.close()
    assert not sink.received


async def test_outputs_are_sent_in_batches(sink: Sink) -> None:
    emitter = Emitter(sink)
    for number in range(2500):
        emitter.emit(EventKind.OUTPUT, Json(b"%d" % number))
    await emitter.close()
    assert sink.calls == 3
    assert len(sink.received) == 2500


async def test_unsent_output_is_bounded() -> None:
    sent: list[int] = []
    never = asyncio.Event()

    async def emit(_: int, events: Events) -> None:
        sent.append(sum(len(data) for _, data in events))
        await never.wait()

    emitter = Emitter(emit)
    piece = Json(b"x" * 2**20)
    emitter.emit(EventKind.OUTPUT, piece)
    await asyncio.sleep(0.01)
    for _ in range(65):
        emitter.emit(EventKind.OUTPUT, piece)
    with pytest.raises(ModelFailed, match="faster than the store takes"):
        emitter.emit(EventKind.OUTPUT, piece)
    assert sent == [sent[0]]
    assert sent[0] <= 9 * 2**20
