"""Connections to PostgreSQL that are lost in the middle of something: nothing is lost, nothing is done twice."""

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from paceline.model.errors import EndedError, UnavailableError
from paceline.model.messages import HandedOver, NewMessage
from paceline.stores import postgres
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_session import Session, connect
from tests.contracts.stores.making import (
    EVERYTHING,
    FLOW,
    NOW,
    mark,
    message,
    one,
    recounted,
    settlement,
    tallied,
)
from tests.contracts.stores.postgres_cut import Cut, Way, way_to
from tests.contracts.stores.postgres_server import PrivateServer, execute, url_for

_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'paceline %'"
)
_SCHEMA = "schema="


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with way_to(url_for(tmp_path)) as made:
        yield made


@pytest.fixture
async def store(way: Way) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(way.url)
    await made.open(NOW)
    yield made
    way.next, way.down = None, False
    await made.close()


async def written(store: PostgresStore, row: NewMessage) -> None:
    """Store it, as an application does: again when it was refused."""
    for _ in range(200):
        try:
            await store.add([row], [FLOW], NOW)
            return
        except UnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("it was refused for ten seconds")


# One commit


@pytest.mark.parametrize("cut", [Cut.AFTER, Cut.HALF])
async def test_a_commit_whose_answer_is_lost_is_found_and_not_repeated(
    store: PostgresStore, way: Way, cut: Cut
) -> None:
    row = message()
    way.next = cut
    assert [a.id for a in await store.add([row], [FLOW], NOW)] == [row.id]
    assert (way.cuts, (await store.health())["looked_up"]) == (1, 1)
    way.next = cut
    (given,) = await store.hand_over([mark(row)], NOW)
    assert given.number == 1
    way.next = cut
    assert await store.settle([settlement(given)], [], [], [], NOW) == []
    assert (await one(store, row.id)).number == 1
    assert len(await store.attempts([row.id])) == 1
    assert (await store.health())["looked_up"] == 3


async def test_a_commit_that_never_arrived_is_refused_and_may_be_made_again(
    store: PostgresStore, way: Way
) -> None:
    row = message()
    way.next = Cut.BEFORE
    with pytest.raises(UnavailableError):
        await store.add([row], [FLOW], NOW)
    assert await store.get([row.id]) == []
    await written(store, row)
    way.next = Cut.BEFORE
    with pytest.raises(UnavailableError):
        await store.hand_over([mark(row)], NOW)
    await asyncio.sleep(0.2)
    (given,) = await store.hand_over([mark(row)], NOW)
    assert given.number == 1


async def test_a_silent_server_is_left_after_a_while(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "connect", partial(connect, seconds=1.0))
    store = PostgresStore(way.url)
    await store.open(NOW)
    row = message()
    way.next = Cut.SILENT
    with pytest.raises(UnavailableError):
        await store.add([row], [FLOW], NOW)
    await written(store, row)
    assert (await one(store, row.id)).state == 2
    await store.close()


async def test_nobody_hears_anything_until_it_is_known(store: PostgresStore, way: Way) -> None:
    row, other = message(), message()
    way.next = Cut.DOWN
    doubtful = asyncio.ensure_future(store.add([row], [FLOW], NOW))
    async with asyncio.timeout(10):
        while not way.cuts:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert not doubtful.done()
    refused = store.add([other], [FLOW], NOW)
    assert refused.done()  # it was not begun, and nothing of it waits
    with pytest.raises(UnavailableError):
        await refused
    assert "away" in await store.health()
    way.down = False
    async with asyncio.timeout(10):
        assert [a.id for a in await doubtful] == [row.id]
    await written(store, other)
    assert [m.id for m in await store.get([row.id, other.id])] == [row.id, other.id]


@pytest.mark.parametrize(("cut", "made"), [(Cut.BEFORE, False), (Cut.AFTER, True)])
async def test_a_doubtful_commit_is_looked_up_even_after_its_node_was_ended(
    way: Way, tmp_path: Path, cut: Cut, made: bool
) -> None:
    store = PostgresStore(way.url, lease_s=0.5)
    await store.open(NOW)
    row, theirs, late = message(), message(), message()
    writer = store._writer
    original, let = writer._connect, asyncio.Event()

    async def later() -> Session:
        await let.wait()
        return await original()

    writer._connect = later
    assert store.nodes._lease is not None
    store.nodes._lease.join()
    way.next = cut
    doubtful = asyncio.ensure_future(store.add([row], [FLOW], NOW))
    async with asyncio.timeout(10):
        while not way.cuts:
            await asyncio.sleep(0.01)
        other = PostgresStore(url_for(tmp_path))
        await other.open(NOW)
        while not await ended(other, store):
            await asyncio.sleep(0.05)
    await other.add([theirs], [FLOW], NOW)  # the same number, of another node
    let.set()
    if made:
        assert [added.id for added in await doubtful] == [row.id]
    else:
        with pytest.raises(UnavailableError):
            await doubtful
    assert len(await other.get([row.id])) == made
    with pytest.raises(EndedError):
        await store.add([late], [FLOW], NOW)
    await other.close()
    await store.close()


async def ended(by: PostgresStore, store: PostgresStore) -> bool:
    """Let one node end another one, if it may."""
    node = [node for node in (await by.nodes.standing()).nodes if node.id == store.nodes.id]
    return not node or await by.nodes.end(node[0])


async def test_a_store_that_is_closed_while_the_server_is_away_ends(store: PostgresStore, way: Way) -> None:
    way.next = Cut.DOWN
    doubtful = asyncio.ensure_future(store.add([message()], [FLOW], NOW))
    await asyncio.sleep(0.3)
    async with asyncio.timeout(5):
        await store.close()
    with pytest.raises(UnavailableError):
        await doubtful


async def test_a_connection_that_is_lost_while_nothing_is_written_is_opened_again(
    store: PostgresStore, tmp_path: Path
) -> None:
    await store.add([message()], [FLOW], NOW)
    await execute(url_for(tmp_path).partition("?")[0], _END)
    async with asyncio.timeout(10):
        while not (await store.health())["reconnects"]:
            await asyncio.sleep(0.02)
    await store.add([message()], [FLOW], NOW)


async def test_a_server_that_forgot_a_commit_is_not_written_to_any_more(
    store: PostgresStore, tmp_path: Path
) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    base, _, schema = url_for(tmp_path).partition("?" + _SCHEMA)
    await execute(base, f"UPDATE {schema}.fence SET batch = batch - 1", _END)
    async with asyncio.timeout(10):
        while "back in time" not in str((await store.health()).get("away")):
            await asyncio.sleep(0.02)
    with pytest.raises(UnavailableError, match="restart"):
        await store.add([message()], [FLOW], NOW)


# Many commits


class Load:
    """Adds, hands over and settles messages one after the other, and keeps books of what it was told."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.added: set[int] = set()
        self.refused: set[int] = set()
        self.ended: set[int] = set()
        self.calls: dict[int, int] = {}
        self.refusals = 0
        self.over = False

    async def run(self) -> None:
        while not self.over:
            try:
                await self._round()
            except UnavailableError:
                await asyncio.sleep(0.02)

    async def _round(self) -> None:
        rows = [message() for _ in range(random.Random().randrange(1, 9))]
        try:
            await self.store.add(rows, [FLOW], NOW)
        except UnavailableError:
            self.refusals += 1
            self.refused.update(row.id for row in rows)
            raise
        self.added.update(row.id for row in rows)
        given: list[HandedOver] | None = None
        while given is None:
            try:
                given = await self.store.hand_over([mark(row) for row in rows], NOW)
            except UnavailableError:
                self.refusals += 1
                if self.over:
                    return
                await asyncio.sleep(0.02)
        assert [g.id for g in given] == [row.id for row in rows], "what was refused had been done"
        for each in given:
            self.calls[each.id] = self.calls.get(each.id, 0) + 1
        stale: list[int] | None = None
        while stale is None:
            try:
                stale = await self.store.settle([settlement(g) for g in given], [], [], [], NOW)
            except UnavailableError:
                self.refusals += 1
                await asyncio.sleep(0.02)
        assert stale == [], "what was refused had been done"
        self.ended.update(row.id for row in rows)

    async def check(self, store: PostgresStore) -> None:
        """What was acknowledged is there, once; what was refused is not."""
        found = {m.id: m async for page in store.export(EVERYTHING) for m in page}
        assert self.added <= found.keys(), "acknowledged and lost"
        assert not self.refused & found.keys(), "refused and stored"
        assert found.keys() == self.added
        assert all(times == 1 for times in self.calls.values())
        lines = await store.attempts(sorted(self.ended))
        assert len(lines) == len(self.ended)
        assert {m.id for m in found.values() if m.state == 5} >= self.ended
        assert await tallied(store) == await recounted(store)


async def test_backends_that_are_terminated_in_the_middle_of_commits_lose_nothing(tmp_path: Path) -> None:
    url = url_for(tmp_path)
    store = PostgresStore(url)
    await store.open(NOW)
    load = Load(store)
    workers = [asyncio.create_task(load.run()) for _ in range(8)]
    for _ in range(40):
        await asyncio.sleep(random.Random().uniform(0.005, 0.1))
        await execute(url.partition("?")[0], _END)
    await asyncio.sleep(0.5)
    load.over = True
    await asyncio.gather(*workers)
    assert len(load.ended) > 100
    assert (await store.health())["reconnects"] >= 20
    await load.check(store)
    await store.close()


async def test_commits_that_are_cut_everywhere_lose_nothing(store: PostgresStore, way: Way) -> None:
    load = Load(store)
    workers = [asyncio.create_task(load.run()) for _ in range(8)]
    for turn in range(24):
        way.next = (Cut.AFTER, Cut.BEFORE, Cut.HALF)[turn % 3]
        async with asyncio.timeout(20):
            while way.cuts == turn:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
    load.over = True
    await asyncio.gather(*workers)
    assert (await store.health())["looked_up"] >= 24
    assert load.refusals >= 8, "none was cut before it arrived"
    await load.check(store)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_is_restarted_under_load_loses_nothing(mode: str) -> None:
    server = PrivateServer()
    try:
        store = PostgresStore(server.url)
        await store.open(NOW)
        load = Load(store)
        workers = [asyncio.create_task(load.run()) for _ in range(8)]
        for _ in range(4):
            await asyncio.sleep(0.4)
            before = len(load.ended)
            await asyncio.to_thread(server.stop, mode)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(10):
                while len(load.ended) == before:
                    await asyncio.sleep(0.02)
        load.over = True
        await asyncio.gather(*workers)
        await load.check(store)
        await store.close()
        again = PostgresStore(server.url)
        await again.open(NOW)
        await load.check(again)
        await again.close()
    finally:
        await asyncio.to_thread(server.remove)
