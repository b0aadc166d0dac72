import asyncio
import threading

import pytest

from predictor.errors import ModelFailed
from predictor.prediction import EventKind, Json
from predictor.worker.emitter import Feed, Said


class Sink:
    """Where a feed ends: what arrived, when, and under which number."""

    def __init__(self) -> None:
        self.said: Said = []
        self.calls = 0
        self.times: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, first: int, said: Said) -> None:
        assert first == len(self.said) + 1
        self.calls += 1
        await self.open.wait()
        self.said += said
        self.times += [asyncio.get_running_loop().time() for kind, _ in said if kind == "progress"]


@pytest.fixture
async def sink() -> Sink:
    return Sink()


async def test_outputs_from_a_thread_arrive_in_order(sink: Sink) -> None:
    feed = Feed(sink)

    def talk() -> None:
        for number in range(1000):
            feed.say(EventKind.OUTPUT, Json(b"%d" % number))

    thread = threading.Thread(target=talk)
    thread.start()
    await asyncio.to_thread(thread.join)
    await feed.end()
    assert [data for _, data in sink.said] == [b"%d" % number for number in range(1000)]


async def test_progress_keeps_its_pace_and_the_last_is_sent(sink: Sink) -> None:
    feed = Feed(sink)
    for number in range(60):
        feed.say(EventKind.PROGRESS, Json(b"%d" % number))
        await asyncio.sleep(0.005)
    feed.say(EventKind.PROGRESS, Json(b"last"))
    await feed.end()
    gaps = [later - earlier for earlier, later in zip(sink.times, sink.times[1:], strict=False)]
    assert len(gaps) >= 2
    assert min(gaps[:-1]) >= 0.1, "but for the last"
    assert sink.said[-1] == (EventKind.PROGRESS, b"last")


async def test_the_end_waits_for_what_is_under_way(sink: Sink) -> None:
    feed = Feed(sink)
    sink.open.clear()
    feed.say(EventKind.OUTPUT, Json(b"1"))
    await asyncio.sleep(0)
    feed.say(EventKind.OUTPUT, Json(b"2"))
    ending = asyncio.create_task(feed.end())
    await asyncio.sleep(0.01)
    assert not ending.done()
    sink.open.set()
    await ending
    assert [data for _, data in sink.said] == [b"1", b"2"]


async def test_what_is_said_after_the_end_is_ignored(sink: Sink) -> None:
    feed = Feed(sink)
    await feed.end()
    feed.say(EventKind.OUTPUT, Json(b"1"))
    await feed.end()
    assert not sink.said


async def test_many_outputs_are_sent_in_parts(sink: Sink) -> None:
    feed = Feed(sink)
    for number in range(2500):
        feed.say(EventKind.OUTPUT, Json(b"%d" % number))
    await feed.end()
    assert sink.calls == 3
    assert len(sink.said) == 2500


async def test_what_is_said_faster_than_it_is_sent_is_bounded() -> None:
    sent: list[int] = []
    never = asyncio.Event()

    async def emit(_: int, said: Said) -> None:
        sent.append(sum(len(data) for _, data in said))
        await never.wait()

    feed = Feed(emit)
    piece = Json(b"x" * 2**20)
    feed.say(EventKind.OUTPUT, piece)
    await asyncio.sleep(0.01)
    for _ in range(65):
        feed.say(EventKind.OUTPUT, piece)
    with pytest.raises(ModelFailed, match="faster than the store takes"):
        feed.say(EventKind.OUTPUT, piece)
    assert sent == [sent[0]]
    assert sent[0] <= 9 * 2**20
