"""32 nodes that store single messages for the lanes of one that listens: what does word to the owner cost?"""

import asyncio
import time
from contextlib import suppress
from statistics import median
from typing import Any

from bench.engine import text_of
from bench.postgres_place import ACCOUNTS, database, make
from paceline.clock import SystemClock
from paceline.engine.nodes import LOOK_S
from paceline.model.ids import IdMaker
from paceline.model.messages import FlowKey, NewMessage
from paceline.stores.postgres import PostgresStore

WRITERS = 32
LEASE_S = 600.0
"""The leases hold through the measurement without being renewed: a server has a hundred connections."""
KEY = FlowKey("default/noop/p1", "default", "", "notification", 5, "default/a1")


async def run(seconds: float, turns: int) -> list[dict[str, Any]]:
    """Rounds with word and without, in turn; medians of the ratios of neighbours."""
    async with database() as base:
        now = SystemClock().now()
        url = await make(base, now)
        owner = PostgresStore(url)
        await owner.open(now)
        listening = asyncio.get_running_loop().create_task(_listen(owner))
        writers = [await _writer(url, now) for _ in range(WRITERS)]
        told = [writer.nodes.told for writer in writers]
        with_word, without = [], []
        await _round(writers, 0.5)
        for _ in range(turns):
            with_word.append(await _round(writers, seconds))
            for writer in writers:
                writer._writer_or_none._told = _say_nothing
            without.append(await _round(writers, seconds))
            for writer, tell in zip(writers, told, strict=True):
                writer._writer_or_none._told = tell
        listening.cancel()
        for writer in writers:
            await writer.close()
        await owner.close()
    return [
        {"name": "pg 32 writers, no word", "value": median(without), "unit": "messages/s"},
        {"name": "pg 32 writers, with word", "value": median(with_word), "unit": "messages/s",
         "ratio": round(median(a / b for a, b in zip(with_word, without, strict=True)), 3),
         "of": "pg 32 writers, no word", "goal": ">= 0.9"},
    ]  # fmt: skip


async def _listen(owner: PostgresStore) -> None:
    """What the engine of the owner does: look when there is word, else twice a second; take what was left."""
    rung = asyncio.Event()
    owner.nodes.watch(lambda: float(SystemClock().now()), rung.set)
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(rung.wait(), LOOK_S)
        rung.clear()
        if (await owner.nodes.standing()).woken:
            await owner.nodes.woken()


def _say_nothing(_partitions: int) -> None:
    """Leave it to the looks, twice a second."""


async def _writer(url: str, now: int) -> PostgresStore:
    store = PostgresStore(url, "api", LEASE_S)
    await store.open(now)
    store.nodes._lease.stop()  # and lets its connection go
    return store


async def _round(writers: list[PostgresStore], seconds: float) -> float:
    end = time.perf_counter() + seconds
    start = time.perf_counter()
    counts = await asyncio.gather(*(_write(each, end) for each in writers))
    return sum(counts) / (time.perf_counter() - start)


async def _write(store: PostgresStore, end: float) -> int:
    """Add single messages one after the other, each in a commit of its own."""
    maker, count, content = IdMaker(store.nodes.slot), 0, '{"text":"' + text_of(0, ACCOUNTS)["text"] + '"}'
    while time.perf_counter() < end:
        now = SystemClock().now()
        id_ = maker.next(now)
        row = NewMessage(
            id_, KEY.number, 2, now, now, now, None, "default", "notification", "noop", "default/a1", "", "r1", 5, 3,
            30_000, content, f"{id_:032x}",
        )  # fmt: skip
        await store.add([row], [KEY] if not count else [], now)
        count += 1
    return count
