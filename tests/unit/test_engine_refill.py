"""Reading on: one read at a time, at a distance while every flow has enough, at once for one that runs short."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest

from paceline.engine import refill as module
from paceline.engine.refill import Refill
from paceline.model.errors import UnavailableError
from paceline.model.messages import NOBODY, Entry, FlowKey, lane_key
from paceline.pacing.agenda import Agenda
from paceline.pacing.flows import Prefetch
from paceline.pacing.scopes import Scopes
from paceline.stores.base import FlowAfter, FlowPart, Store

LANE = lane_key("default", "chat", "default")


def key(name: str) -> FlowKey:
    return FlowKey(LANE, "default", name, "chat", 5, NOBODY)


class Reads:
    """Stands where `refill` reads: notes who asks, and answers when told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[list[int]] = asyncio.Queue()
        self.answers: asyncio.Queue[list[FlowPart] | UnavailableError] = asyncio.Queue()

    async def entries(self, requests: Sequence[FlowAfter]) -> list[FlowPart]:
        await self.asked.put([request.flow for request in requests])
        answer = await self.answers.get()
        if isinstance(answer, UnavailableError):
            raise answer
        return answer


class Bench:
    """A refill of an agenda with a prefetch of 100 a flow."""

    def __init__(self) -> None:
        self.reads = Reads()
        self.agenda = Agenda(Scopes(), Prefetch(200))
        self.tasks: list[asyncio.Task[None]] = []
        self.away: list[UnavailableError] = []
        self.refill = Refill(
            cast("Store", self.reads), self.agenda, self.away.append, lambda: None, self.spawn
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def flow(self, name: str, ready: int) -> int:
        """A flow with so many entries in memory and more in the store."""
        flow = self.agenda.flow(key(name).number, key(name))
        for number in range(ready):
            flow.offer(Entry(number, number, None, "r", None))
        flow.more = True
        self.agenda.wants(flow)
        return flow.number


def entries(count: int) -> list[Entry]:
    return [Entry(1000 + number, 1000 + number, None, "r", None) for number in range(count)]


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 1e9)
    monkeypatch.setattr(module, "READ_ROWS", 100)  # one flow a read


async def bounded(wait: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with asyncio.timeout(10):
        return await wait()


@pytest.mark.usefixtures("long_rests")
async def test_a_flow_that_has_enough_waits_and_one_that_runs_short_ends_the_wait() -> None:
    bench = Bench()
    first, second = bench.flow("a", 30), bench.flow("b", 20)
    bench.refill.look()
    assert await bounded(bench.reads.asked.get) == [first]
    await bench.reads.answers.put([FlowPart(first, entries(90), more=False)])
    while bench.agenda.flow(first, key("a")).reading:
        await asyncio.sleep(0)
    bench.refill.look()
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.reads.asked.empty()  # the second has enough: it waits
    flow = bench.agenda.flow(second, key("b"))
    while not flow.short:
        flow.ready.popleft()
    bench.agenda.wants(flow)
    bench.refill.look()
    assert await bounded(bench.reads.asked.get) == [second]
    await bench.reads.answers.put([])
    await asyncio.wait_for(bench.tasks[0], 10)
    assert len(bench.tasks) == 1


@pytest.mark.usefixtures("long_rests")
async def test_those_that_run_short_are_read_first() -> None:
    bench = Bench()
    bench.flow("a", 30)
    short = bench.flow("b", 1)
    bench.refill.look()
    assert await bounded(bench.reads.asked.get) == [short]
    bench.refill.stop()
    await bench.reads.answers.put([])
    await asyncio.wait_for(bench.tasks[0], 10)


@pytest.mark.usefixtures("long_rests")
async def test_a_store_that_is_away_is_asked_again_only_when_somebody_looks() -> None:
    bench = Bench()
    number = bench.flow("a", 0)
    bench.refill.look()
    bench.refill.look()  # one read at a time
    await bounded(bench.reads.asked.get)
    await bench.reads.answers.put(UnavailableError("the disk is full"))
    await asyncio.wait_for(bench.tasks[0], 10)
    assert len(bench.tasks) == len(bench.away) == 1
    bench.refill.look()
    assert await bounded(bench.reads.asked.get) == [number]
    await bench.reads.answers.put([])
    await asyncio.wait_for(bench.tasks[1], 10)


@pytest.mark.usefixtures("long_rests")
async def test_after_the_stop_nothing_is_read() -> None:
    bench = Bench()
    bench.flow("a", 0)
    bench.refill.stop()
    bench.refill.look()
    assert not bench.tasks
