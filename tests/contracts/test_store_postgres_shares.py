"""Partitions that change hands, word between nodes, and who wins where two of them want the same."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.model.messages import FlowKey
from paceline.model.nodes import EVERY_PARTITION, PARTITIONS, Wake, partition_of
from paceline.stores.base import Document
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import (
    FLOW,
    NOW,
    OTHER_FLOW,
    Machine,
    mark,
    message,
    one,
    recounted,
    revision,
    sent,
    settlement,
    tallied,
)
from tests.contracts.stores.nodes import ended, two_nodes
from tests.contracts.stores.postgres_server import url_for

FAR = FlowKey("acme/chat/far", "acme", "", "chat", 5, "")
"""A flow of another partition than FLOW's."""


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[PostgresStore]]:
    async with two_nodes(tmp_path) as made:
        yield made


# Partitions


async def test_a_partition_is_taken_by_one_and_given_by_its_owner_alone(stores: list[PostgresStore]) -> None:
    first, second = stores
    assert await second.nodes.take([1, 2]) == []
    assert await second.nodes.give([1], second.nodes.id) == []
    assert await first.nodes.give([1, 2, 70], second.nodes.id) == [1, 2]
    assert first.nodes.owned == EVERY_PARTITION - {1, 2}
    assert (await second.nodes.standing()).owners[1] == second.nodes.id
    assert second.nodes.owned == {1, 2}


async def test_nothing_is_given_to_a_node_that_has_ended(stores: list[PostgresStore]) -> None:
    first, second = stores
    was = second.nodes.id
    await ended(first, second)
    assert await first.nodes.give([1], was) == []
    assert first.nodes.owned == EVERY_PARTITION


async def test_of_many_that_want_the_same_partitions_each_goes_to_one(tmp_path: Path) -> None:
    serving = PostgresStore(url_for(tmp_path), role="api")
    await serving.open(NOW)
    made = [PostgresStore(url_for(tmp_path)) for _ in range(4)]
    for store in made:
        await store.open(NOW)
    await made[0].close()
    answers = await asyncio.gather(*(store.nodes.take(range(PARTITIONS)) for store in made[1:]))
    assert sorted(number for answer in answers for number in answer) == list(range(PARTITIONS))
    for store in (*made[1:], serving):
        await store.close()


async def test_each_node_promotes_expires_and_sees_only_what_it_owns(stores: list[PostgresStore]) -> None:
    first, second = stores
    assert partition_of(FAR.lane) != partition_of(FLOW.lane)
    near = message(state=1, due_at=NOW + 5)
    far = message(FAR, state=1, due_at=NOW + 5)
    late = message(FAR, expires_at=NOW + 5)
    await second.add([near, far, late], [FLOW, FAR], NOW)
    await first.nodes.give([partition_of(FAR.lane)], second.nodes.id)
    await second.nodes.standing()
    assert [entry.id for _, entry in (await second.promote(NOW + 9, 9)).entries] == [far.id]
    assert (await second.expire(NOW + 9, 9)).ids == [late.id]
    assert (await first.promote(NOW, 9)).next_due == NOW + 5
    assert (await first.expire(NOW + 9, 9)).ids == []
    assert [entry.id for _, entry in (await first.promote(NOW + 9, 9)).entries] == [near.id]
    far_parts = [partition_of(FAR.lane)]
    assert [(flow.key, flow.pending) for flow in await first.nodes.flows(far_parts)] == [(FAR, 1)]
    (given,) = await second.hand_over([mark(far)], NOW)
    assert await first.nodes.open_calls(far_parts) == [given]
    assert await first.nodes.open_calls([partition_of(FLOW.lane)]) == []


# Word for the owner


async def test_the_owner_hears_of_what_others_store(stores: list[PostgresStore]) -> None:
    first, second = stores
    rung = asyncio.Event()
    first.nodes.watch(lambda: 0.0, rung.set)
    await first.nodes.standing()  # it listens from here on
    await asyncio.sleep(0.1)
    rung.clear()
    rows = [message(turn=7), message(turn=5), message(state=1, due_at=NOW + 50, turn=60, expires_at=NOW + 99)]
    await second.add(rows, [FLOW], NOW)
    async with asyncio.timeout(5):
        await rung.wait()
    assert (await first.nodes.standing()).woken
    assert await first.nodes.woken() == [Wake(FLOW.number, 5, rows[1].id, 3, NOW + 50, NOW + 99)]
    assert not (await first.nodes.standing()).woken
    await first.add([message()], [FLOW], NOW)
    assert not (await first.nodes.standing()).woken, "it tells itself"


async def test_a_persons_change_on_another_node_reaches_the_owner(stores: list[PostgresStore]) -> None:
    first, second = stores
    row = message(state=1, due_at=NOW + 5000)
    await first.add([row], [FLOW, OTHER_FLOW], NOW)
    was = await one(second, row.id)
    made = revision(was, "revive", 2, flow=OTHER_FLOW.number, turn=3)
    assert await second.revise([made], NOW) == [row.id]
    assert await first.nodes.woken() == [Wake(OTHER_FLOW.number, 3, row.id, 1, None, None)]


async def test_word_for_a_partition_that_changes_hands_is_not_lost(stores: list[PostgresStore]) -> None:
    first, second = stores
    part = partition_of(FLOW.lane)
    await asyncio.gather(
        first.nodes.give([part], second.nodes.id),
        *(first.add([message(turn=turn)], [FLOW], NOW) for turn in range(50)),
    )
    await second.nodes.standing()
    (flow,) = await second.nodes.flows([part])
    assert flow.pending == 50
    await first.add([message()], [FLOW], NOW)
    assert sum(wake.many for wake in await second.nodes.woken()) >= 1


async def test_documents_changed_on_one_node_are_news_to_the_others(stores: list[PostgresStore]) -> None:
    first, second = stores
    rung = asyncio.Event()
    second.nodes.watch(lambda: 0.0, rung.set)
    before = (await second.nodes.standing()).revision
    await asyncio.sleep(0.1)
    rung.clear()
    await first.put([Document("queue", "", name, "{}", NOW) for name in ("a", "b")])
    async with asyncio.timeout(5):
        await rung.wait()
    assert [(each.name, each.body) for each in await second.nodes.changed(before)] == [
        ("a", "{}"),
        ("b", "{}"),
    ]
    assert await first.nodes.changed(before) == []
    now = (await second.nodes.standing()).revision
    await first.remove("queue", "", "a")
    await second.put([Document("queue", "", "c", "{}", NOW)])
    assert [(each.name, each.body) for each in await second.nodes.changed(now)] == [("a", None)]
    assert [each.name for each in await first.nodes.changed(now)] == ["c"]
    await first.put([Document("queue", "", "a", "2", NOW)])
    assert [(each.name, each.body) for each in await second.nodes.changed(now)] == [("a", "2")]


async def test_a_listener_that_lost_its_ear_listens_again(
    tmp_path: Path, stores: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.stores.postgres_signals._ECHO_S", 0.05)
    first, second = stores
    rung = asyncio.Event()
    first.nodes.watch(lambda: 0.0, rung.set)
    await first.nodes.standing()
    signals = first.nodes._signals
    assert signals is not None
    assert signals._session is not None
    signals._echo_at = 0
    await first.nodes.standing()
    await asyncio.sleep(0.1)
    await first.nodes.standing()
    assert first.nodes.heard_anew == 0
    await signals._session.connection.execute("UNLISTEN *")
    async with asyncio.timeout(5):
        while not first.nodes.heard_anew:
            await asyncio.sleep(0.06)
            await first.nodes.standing()
    await asyncio.sleep(0.1)
    rung.clear()
    await second.add([message()], [FLOW], NOW)
    async with asyncio.timeout(5):
        await rung.wait()


# Two at once


async def test_the_same_idempotency_key_on_two_nodes_at_once_is_one_message(
    stores: list[PostgresStore],
) -> None:
    chance = random.Random(7)
    for turn in range(40):
        keys = [f"{turn}-{number}" for number in range(12)]
        calls = []
        for store in (*stores, *stores):
            mine = chance.sample(keys, 8)
            rows = [message(idempotency_key=key, fingerprint="f", turn=turn) for key in mine]
            calls.append((store, mine, rows))
        answers = await asyncio.gather(*(store.add(rows, [FLOW], NOW) for store, _, rows in calls))
        found: dict[str, set[int]] = {}
        fresh = 0
        for (_, mine, _rows), answer in zip(calls, answers, strict=True):
            for key, added in zip(mine, answer, strict=True):
                found.setdefault(key, set()).add(added.id)
                fresh += not added.duplicate
        assert all(len(ids) == 1 for ids in found.values()), "one key, two messages"
        assert fresh == len(found)
        assert len(await stores[0].get([id_ for ids in found.values() for id_ in ids])) == len(found)
    assert await tallied(stores[0]) == await recounted(stores[0])


async def test_a_message_is_cancelled_or_handed_over_and_never_both(stores: list[PostgresStore]) -> None:
    first, second = stores
    both = 0
    for turn in range(60):
        rows = [message(turn=turn) for _ in range(20)]
        await first.add(rows, [FLOW], NOW)
        seen_rows = await second.get([row.id for row in rows])
        changes = [revision(row, "cancel", 7) for row in seen_rows]
        handed, cancelled = await asyncio.gather(
            first.hand_over([mark(row) for row in rows], NOW),
            second.revise(changes if turn % 2 else changes[::-1], NOW),
        )
        sent_ids = {each.id for each in handed}
        assert not sent_ids & set(cancelled), "handed over and cancelled"
        assert sent_ids | set(cancelled) == {row.id for row in rows}
        both += bool(sent_ids) and bool(cancelled)
        states = {row.id: row.state for row in await first.get([row.id for row in rows])}
        assert all(states[id_] == 7 for id_ in cancelled)
        assert await first.settle([settlement(each) for each in handed], [], [], [], NOW) == []
    assert await tallied(first) == await recounted(first)


async def test_an_ending_is_not_lost_when_a_person_changes_the_message_meanwhile(
    stores: list[PostgresStore],
) -> None:
    first, second = stores
    for turn in range(30):
        rows = [message(turn=turn) for _ in range(10)]
        await first.add(rows, [FLOW], NOW)
        handed = await first.hand_over([mark(row) for row in rows], NOW)
        seen_rows = await second.get([row.id for row in rows])
        stale, _ = await asyncio.gather(
            first.settle([settlement(each) for each in handed], [], [], [], NOW),
            second.revise([revision(row, "", row.state, turn=99) for row in seen_rows], NOW),
        )
        assert stale == []
    assert await first.processing() == []


async def test_counts_stay_exact_however_two_nodes_mix(stores: list[PostgresStore]) -> None:
    first, second = stores
    machines = [Machine(first, 11), Machine(second, 12)]
    machines[1].rows = machines[0].rows  # both move the same messages
    for _ in range(60):
        await asyncio.gather(*(machine.step() for machine in machines))
    kept = await tallied(first)
    assert kept == await recounted(second)
    for _ in range(3):
        await sent(first, await _new(second))
    daily = await second.daily([0])
    assert sum(row.completed for row in daily) >= 3
    assert len({(row.day, row.tenant, row.queue, row.channel, row.account) for row in daily}) == len(daily)


async def _new(store: PostgresStore) -> Any:
    row = message()
    await store.add([row], [FLOW], NOW)
    return msgspec.structs.replace(row)
