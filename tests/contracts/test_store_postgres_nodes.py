"""Several nodes on one schema: who joins and leaves, and what an ended one can still do."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.model.errors import EndedError, OccupiedError, SchemaError, UnavailableError
from paceline.model.nodes import EVERY_PARTITION, PARTITIONS
from paceline.stores import postgres_migrate
from paceline.stores.base import Document
from paceline.stores.postgres import PostgresStore
from paceline.stores.statements import Migration, load_migrations
from tests.contracts.stores.making import (
    FLOW,
    NOW,
    mark,
    message,
    one,
    settlement,
)
from tests.contracts.stores.nodes import LEASE_S, ended, seen, silence, two_nodes
from tests.contracts.stores.postgres_server import base, execute, url_for

_KEEP_OPEN = """
import asyncio, sys
from paceline.stores.postgres import PostgresStore
async def run():
    store = PostgresStore(sys.argv[1], lease_s=float(sys.argv[2]))
    await store.open(0)
    print("open", flush=True)
    await asyncio.sleep(600)
asyncio.run(run())
"""


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[PostgresStore]]:
    async with two_nodes(tmp_path) as made:
        yield made


# Joining and leaving


async def test_the_first_node_owns_everything_and_the_second_one_nothing(stores: list[PostgresStore]) -> None:
    first, second = stores
    assert (first.nodes.owned, second.nodes.owned) == (EVERY_PARTITION, frozenset())
    assert (first.nodes.slot, second.nodes.slot) == (0, 1)
    standing = await second.nodes.standing()
    assert standing.owners == (first.nodes.id,) * PARTITIONS
    assert {node.id: node.lapsed for node in standing.nodes} == {
        first.nodes.id: False,
        second.nodes.id: False,
    }
    assert {node.process for node in standing.nodes} == {os.getpid()}


async def test_a_node_that_leaves_gives_everything_back_at_once(stores: list[PostgresStore]) -> None:
    first, second = stores
    await first.close()
    assert (await second.nodes.standing()).owners == (None,) * PARTITIONS
    assert await second.nodes.take(range(PARTITIONS)) == list(range(PARTITIONS))
    with pytest.raises(UnavailableError):
        await first.add([message()], [FLOW], NOW)
    with pytest.raises(UnavailableError):
        await first.get([1])


async def test_a_node_that_only_serves_owns_nothing_and_leaves_everything_to_the_next(tmp_path: Path) -> None:
    serving = PostgresStore(url_for(tmp_path), role="api")
    await serving.open(NOW)
    assert serving.nodes.owned == frozenset()
    sending = PostgresStore(url_for(tmp_path))
    await sending.open(NOW)
    assert sending.nodes.owned == EVERY_PARTITION
    await sending.close()
    await serving.close()


async def test_two_that_start_at_the_same_time_share_nothing(tmp_path: Path) -> None:
    made = [PostgresStore(url_for(tmp_path)) for _ in range(4)]
    await asyncio.gather(*(store.open(NOW) for store in made))
    assert sorted(len(store.nodes.owned) for store in made) == [0, 0, 0, PARTITIONS]
    assert sorted(store.nodes.slot for store in made) == [0, 1, 2, 3]
    for store in made:
        await store.close()


async def test_there_are_never_more_nodes_than_slots(tmp_path: Path, stores: list[PostgresStore]) -> None:
    url, schema = base(tmp_path)
    await execute(
        url,
        f"INSERT INTO {schema}.node SELECT 'n' || n, n, '', 'all', '', 1, 0, 0, 1e15::bigint, 0, '', 0"
        f" FROM generate_series(2, 63) AS n",
    )
    with pytest.raises(OccupiedError, match="64 nodes"):
        await PostgresStore(url_for(tmp_path)).open(NOW)
    await execute(url, f"DELETE FROM {schema}.node WHERE slot = 17")
    third = PostgresStore(url_for(tmp_path))
    await third.open(NOW)
    assert third.nodes.slot == 17
    await third.close()


async def test_a_schema_is_not_changed_under_the_nodes_that_use_it(
    tmp_path: Path, stores: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_migrations("postgres")
    note = Migration(len(known) + 1, "note", "ALTER TABLE message ADD COLUMN note text", "-")
    monkeypatch.setattr(postgres_migrate, "load_migrations", lambda _dialect: (*known, note))
    with pytest.raises(
        OccupiedError, match=rf"with which process {os.getpid()} .*cannot work; stop these first"
    ):
        await PostgresStore(url_for(tmp_path)).open(NOW)
    for store in stores:
        await store.close()
    await stores[0].open(NOW)
    monkeypatch.undo()
    with pytest.raises(SchemaError, match="newer"):
        await stores[1].open(NOW)


# The lease and the fence


async def test_a_lease_is_renewed_while_the_event_loop_is_blocked(stores: list[PostgresStore]) -> None:
    lease = stores[0].nodes._lease
    assert lease is not None
    before = lease.renewals
    time.sleep(2 * LEASE_S)
    assert stores[0].nodes.may_send()
    assert lease.renewals > before
    node = await seen(stores[1], stores[0])
    assert node is not None
    assert not await stores[1].nodes.end(node)


async def test_a_node_stops_sending_before_others_may_end_it(stores: list[PostgresStore]) -> None:
    first, second = stores
    silence(first)
    async with asyncio.timeout(10):
        while first.nodes.may_send():
            node = await seen(second, first)
            assert node is not None
            assert not await second.nodes.end(node)
            await asyncio.sleep(0.005)
        node = await seen(second, first)
        while node is not None and not await second.nodes.end(node):
            await asyncio.sleep(0.005)
            node = await seen(second, first)
    assert not first.nodes.may_send()


async def test_an_ended_node_writes_nothing_any_more(stores: list[PostgresStore]) -> None:
    first, second = stores
    row, waiting = message(), message()
    await first.add([row, waiting], [FLOW], NOW)
    (given,) = await first.hand_over([mark(row)], NOW)
    await ended(second, first)
    for write in (
        lambda: first.settle([settlement(given)], [], [], [], NOW),
        lambda: first.hand_over([mark(waiting)], NOW),
        lambda: first.promote(NOW, 9),
        lambda: first.put([Document("queue", "", "x", "{}", NOW)]),
        lambda: first.nodes.take([1]),
    ):
        with pytest.raises(EndedError, match="another node ended this one"):
            await write()
    with pytest.raises(EndedError):
        await first.add([message()], [FLOW], NOW)
    assert await second.nodes.open_calls(sorted(EVERY_PARTITION)) == [given]
    assert await second.nodes.take(sorted(EVERY_PARTITION)) == sorted(EVERY_PARTITION)
    assert await second.settle([settlement(given)], [], [], [], NOW) == []
    assert (await one(second, waiting.id)).state == 2


async def test_a_node_that_does_not_know_that_it_was_ended_meets_the_fence(
    tmp_path: Path, stores: list[PostgresStore]
) -> None:
    first, second = stores
    row = message()
    await first.add([row], [FLOW], NOW)
    url, schema = base(tmp_path)
    await execute(url, f"UPDATE {schema}.fence SET ended = true WHERE node = '{first.nodes.id}'")
    assert first.nodes.may_send()
    with pytest.raises(EndedError):
        await first.hand_over([mark(row)], NOW)
    assert (await one(second, row.id)).state == 2
    assert await second.processing() == []


async def test_a_node_in_the_middle_of_a_commit_is_ended_after_it_or_its_commit_is_undone(
    tmp_path: Path, stores: list[PostgresStore]
) -> None:
    """One that was stopped there would hold its row for ever: its connection is ended."""
    first, second = stores
    row = message()
    reached, let = asyncio.Event(), asyncio.Event()
    connection = first._writer._session.connection

    class Stops:
        """The connection, which stops before a COMMIT."""

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        async def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                reached.set()
                await let.wait()
            return await connection.execute(statement, *values)

    first._writer._session.connection = Stops()
    adding = asyncio.ensure_future(first.add([row], [FLOW], NOW))
    await reached.wait()
    await ended(second, first)
    let.set()
    with pytest.raises(UnavailableError):
        await adding
    assert await second.get([row.id]) == []


async def test_a_process_that_was_killed_is_followed_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEP_OPEN, url_for(tmp_path), "3600"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = PostgresStore(url_for(tmp_path))
    async with asyncio.timeout(10):
        await store.open(NOW)
    assert store.nodes.owned == EVERY_PARTITION
    await store.close()


def _answer(process: "subprocess.Popen[bytes]") -> bytes:
    """The next line that is an answer: the log goes the same way."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line in {b"True\n", b"False\n"})


async def test_a_process_that_was_stopped_may_not_send_when_it_goes_on(tmp_path: Path) -> None:
    program = _KEEP_OPEN.replace(
        "await asyncio.sleep(600)",
        "[print(store.nodes.may_send(), flush=True) for _ in sys.stdin]",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, url_for(tmp_path), "2"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == b"open\n"
        process.stdin.write(b"?\n")
        process.stdin.flush()
        assert _answer(process) == b"True\n"
        second = PostgresStore(url_for(tmp_path))
        await second.open(NOW)
        process.send_signal(signal.SIGSTOP)
        (other,) = [node for node in (await second.nodes.standing()).nodes if node.id != second.nodes.id]
        async with asyncio.timeout(10):
            while not await second.nodes.end(other):
                await asyncio.sleep(0.05)
        process.stdin.write(b"?\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        assert _answer(process) == b"False\n"
        await second.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


async def test_an_ended_node_comes_back_as_a_new_one_that_owns_nothing(stores: list[PostgresStore]) -> None:
    first, second = stores
    was = first.nodes.id
    rows = [message()]
    await first.add(rows, [FLOW], NOW)
    await ended(second, first)
    await second.nodes.take(sorted(EVERY_PARTITION))
    await first.nodes.rejoin()
    assert first.nodes.id != was
    assert first.nodes.owned == frozenset()
    assert first.nodes.may_send()
    assert await first.greatest_id() == rows[0].id
    await first.add([message()], [FLOW], NOW)
    assert await first.nodes.take([3]) == []
