"""Several engines on one PostgreSQL schema: each sends what it owns, and all of it is sent once, within its limits."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paceline.model.errors import ConflictError, UnavailableError
from paceline.model.messages import Mark
from paceline.model.nodes import EVERY_PARTITION, PARTITIONS, partition_of
from paceline.stores.nodes import Handed
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.engine_group import LEASE_S, accounts, group, silence, until
from tests.contracts.test_engine_support import ADMIN, Engine


async def test_a_second_node_gets_half_and_both_send_what_is_theirs(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        names = await accounts(first, 24)
        assert first.core.owned == EVERY_PARTITION
        second = await nodes.add()
        await nodes.shared()
        ids = [await engine.send(account=name) for name in names for engine in nodes.engines]
        for id_ in ids:
            assert (await first.ended(id_))["state"] == "completed"
        sent = Counter(first.script.sent + second.script.sent)
        assert sorted(id_ for id_, _ in sent) == sorted(ids)
        assert max(sent.values()) == 1
        for engine in nodes.engines:
            lanes = {engine.core.directory.accounts[f"default/{name}"].lane for _, name in engine.script.sent}
            assert lanes
            assert {partition_of(lane) for lane in lanes} <= engine.core.owned


async def test_a_node_gives_away_what_is_not_busy(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        names = await accounts(first, 24)
        first.script.free.clear()
        ids = [await first.send(account=name) for name in names for _ in range(2)]
        await first.script.calls(len(names))
        second = await nodes.add()
        await nodes.shared()
        assert not {partition_of(f"default/script/pool-{name}") for name in names} & second.core.owned
        first.script.free.set()
        for id_ in ids:
            assert (await first.ended(id_))["state"] == "completed"


async def test_a_partition_with_a_call_under_way_waits_for_it_and_is_given_then(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        (name,) = await accounts(first, 1)
        second = await nodes.add()
        await nodes.shared()
        part = partition_of(f"default/script/pool-{name}")
        await until(lambda: f"default/{name}" in second.core.directory.accounts)
        owner, other = (first, second) if part in first.core.owned else (second, first)
        assert owner.service.nodes is not None
        assert other.store.nodes is not None
        owner.script.free.clear()
        ids = [await owner.send(account=name) for _ in range(3)]
        await owner.script.calls(1)
        giving = asyncio.ensure_future(owner.service.nodes._give(frozenset({part}), other.store.nodes.id))
        await asyncio.sleep(0.5)
        assert not giving.done()
        assert len(owner.script.sent) == 1
        owner.script.free.set()
        await giving
        for id_ in ids:
            assert (await first.ended(id_))["state"] == "completed"
        assert [id_ for id_, _ in owner.script.sent + other.script.sent] == ids
        assert len(owner.script.sent) == 1


async def test_partitions_whose_calls_take_too_long_stay_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.engine.nodes.PATIENCE_S", 0.3)
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        (name,) = await accounts(first, 1, concurrency=2)
        first.script.free.clear()
        long = await first.send(account=name)
        await first.script.calls(1)
        part = partition_of(f"default/script/pool-{name}")
        assert first.service.nodes is not None
        giving = asyncio.ensure_future(first.service.nodes._give(frozenset({part}), "nobody"))
        await until(lambda: part not in first.core.owned)
        missed = await first.send(account=name)
        await giving
        await first.script.calls(2)
        assert part in first.core.owned
        first.script.free.set()
        for id_ in (long, missed):
            assert (await first.ended(id_))["state"] == "completed"


async def test_what_comes_in_elsewhere_goes_at_once(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add(role="api")
        await until(lambda: "default/a0" in second.core.directory.accounts)
        took: list[float] = []
        for _ in range(8):
            begun = time.monotonic()
            id_ = await second.send(account="a0")
            await first.script.calls(len(took) + 1)
            took.append(time.monotonic() - begun)
            assert (await second.ended(id_))["state"] == "completed"
        assert second.script.sent == []
        assert sorted(took)[4] < 0.4, "only the look every half second finds it"


async def test_a_flow_that_two_nodes_fill_is_sent_whole(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add(role="api")
        await until(lambda: "default/a0" in second.core.directory.accounts)
        first.script.free.clear()
        rounds = [
            asyncio.gather(*(e.send(account="a0") for e in nodes.engines for _ in range(40)))
            for _ in range(10)
        ]
        ids = [id_ for each in rounds for id_ in await each]
        first.script.free.set()
        await first.script.calls(len(ids))
        await until(lambda: len(first.script.sent) == len(ids))
        assert sorted(id_ for id_, _ in first.script.sent) == sorted(ids)


async def test_a_node_that_leaves_is_followed_at_once(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add()
        await nodes.shared()
        await first.service.close(1)
        await until(lambda: second.core.owned == EVERY_PARTITION, 2)


async def test_what_the_next_in_line_does_not_take_others_take(tmp_path: Path) -> None:
    """One whose event loop is blocked keeps its lease: nobody may wait for it until it looks again."""
    async with group(tmp_path) as nodes:
        for _ in range(3):
            await nodes.add()
        await nodes.shared()
        blocked, leaving, left = nodes.engines
        looks = blocked.service.nodes
        assert looks is not None and looks._task is not None
        looks._task.cancel()
        await asyncio.wait({looks._task})
        before = set(blocked.store.nodes.owned if blocked.store.nodes else ())
        await leaving.service.close(1)
        await until(lambda: len(left.core.owned) == PARTITIONS - len(before))
        looks.start()


@pytest.mark.parametrize("behind_ms", [0, 1500])
async def test_a_node_that_falls_silent_is_followed_and_its_windows_with_it(
    tmp_path: Path, behind_ms: int
) -> None:
    """Also where its clock, by which its journal lines are, was behind the database's."""
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add()
        await nodes.shared()
        part = next(iter(first.core.owned))
        pool = next(f"p{n}" for n in range(10_000) if partition_of(f"default/script/p{n}") == part)
        await first.account("tight", pool=pool, limits=["3/4s"])
        await until(lambda: "default/tight" in second.core.directory.accounts)
        first.clock.follow(-behind_ms)
        store = second.store.nodes
        assert store is not None
        await until(
            lambda: any(one["clock_off_ms"] >= behind_ms for one in second.service.list_nodes()["items"])
        )
        begun = time.monotonic()
        ids = [await second.send(account="tight") for _ in range(6)]
        await first.script.calls(3)
        silence(first)
        await second.script.calls(1)
        assert time.monotonic() - begun >= 4.0, "the windows of the one before were forgotten"
        for id_ in ids:
            assert (await second.ended(id_))["state"] == "completed"
        assert len(first.script.sent) + len(second.script.sent) == 6


async def test_what_a_silent_node_had_under_way_is_settled_by_its_follower_and_its_own_ending_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        first.script.free.clear()
        id_ = await first.send(account="a0")
        await first.script.calls(1)
        second = await nodes.add(role="api")
        third = await nodes.add()
        was = first.service.core.store.nodes
        assert was is not None
        before = was.id
        silence(first)
        assert (await second.ended(id_))["state"] == "uncertain"
        await until(lambda: was.id != before)  # it came back as another node
        assert first.script.sent == [(id_, "a0")]
        assert third.script.sent == []
        first.script.free.set()
        await nodes_settled(first, third)
        ids = [await engine.send(account="a0") for engine in (first, third)]
        for each in ids:
            assert (await first.ended(each))["state"] == "completed"
        assert (await second.ended(id_))["state"] == "uncertain"


async def test_a_call_does_not_begin_after_the_lease_even_where_it_was_handed_over_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        store = first.store.nodes
        assert store is not None
        hand_over = store.hand_over

        async def slow(marks: Sequence[Mark], *more: Any) -> Handed:
            handed = await hand_over(marks, *more)
            silence(first)
            while store.may_send():
                await asyncio.sleep(0.01)
            return handed

        monkeypatch.setattr(store, "hand_over", slow)
        id_ = await first.send(account="a0")
        await until(lambda: not store.may_send())
        await asyncio.sleep(0.1)
        assert first.script.sent == []
        monkeypatch.undo()
        second = await nodes.add()
        view = await second.ended(id_)
        assert (view["state"], first.script.sent) == ("completed", [])


async def test_after_the_database_was_away_for_all_nobody_is_ended_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add()
        await nodes.shared()
        ids = [engine.store.nodes.id for engine in nodes.engines if engine.store.nodes]
        for engine in nodes.engines:
            assert isinstance(engine.store, PostgresStore)
            lease = engine.store.nodes._lease
            assert lease is not None
            monkeypatch.setattr(lease, "_renew", _away)
            monkeypatch.setattr(engine.store.nodes, "standing", _away)
        await until(lambda: not any(e.store.nodes.may_send() for e in nodes.engines if e.store.nodes))
        await asyncio.sleep(0.2)
        monkeypatch.undo()
        await until(lambda: all(e.store.nodes.may_send() for e in nodes.engines if e.store.nodes))
        await asyncio.sleep(LEASE_S)
        assert [engine.store.nodes.id for engine in nodes.engines if engine.store.nodes] == ids
        assert len(first.core.owned) == len(second.core.owned) == PARTITIONS // 2


async def _away(*_given: Any) -> Any:
    await asyncio.sleep(0.05)
    raise UnavailableError("the database is away")


async def test_an_account_does_not_change_its_node_while_several_share_the_work(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        await nodes.add()
        await nodes.shared()
        (name,) = await accounts(first, 1)
        with pytest.raises(ConflictError, match="while several nodes share the work"):
            await first.account(name, pool="other")
        assert (await first.ended(await first.send(account=name)))["state"] == "completed"
        await first.service.accounts.delete(ADMIN, name)
        pools = (f"p{n}" for n in range(1000))
        far = next(
            p
            for p in pools
            if partition_of(f"default/script/{p}") != partition_of(f"default/script/pool-{name}")
        )
        with pytest.raises(ConflictError, match="less than a minute ago"):
            await first.account(name, pool=far)
        await first.account(name, pool=f"pool-{name}")


async def nodes_settled(*engines: Engine) -> None:
    await until(lambda: sum(len(e.core.owned) for e in engines) == PARTITIONS)
    await until(lambda: all(len(e.core.owned) == PARTITIONS // len(engines) for e in engines))


async def test_settings_changed_on_one_node_hold_on_all(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add()
        await nodes.shared()
        names = await accounts(first, 8)
        await until(lambda: all(f"default/{n}" in second.core.directory.accounts for n in names), 1)
        for engine in nodes.engines:
            for name in names:
                await engine.service.accounts.pause(ADMIN, name)
        await until(
            lambda: all(
                e.core.directory.accounts[f"default/{n}"].paused for n in names for e in nodes.engines
            ),
            1,
        )
        ids = [await first.send(account=name) for name in names]
        await asyncio.sleep(0.3)
        assert first.script.sent + second.script.sent == []
        for name in names:
            await second.service.accounts.resume(ADMIN, name)
        for id_ in ids:
            assert (await first.ended(id_))["state"] == "completed"
        await second.service.queues.pause(ADMIN, "notification")
        await until(lambda: first.core.directory.queue("notification").paused, 1)
        await second.service.queues.resume(ADMIN, "notification")
        key = await first.service.keys.create(ADMIN, "k", "viewer", None)
        await until(lambda: second.service.keys.who(str(key["key"])) is not None, 1)
        await first.service.keys.revoke(ADMIN, "k")
        await until(lambda: second.service.keys.who(str(key["key"])) is None, 1)
        await first.service.holds.hold(ADMIN, {})
        await until(lambda: second.service.holds.held is not None, 1)
        held = await first.send(account=names[0])
        await asyncio.sleep(0.2)
        assert await first.state(held) == "pending"
        await second.service.holds.release(ADMIN, {}, dry_run=False)
        assert (await second.ended(held))["state"] == "completed"
        await first.service.accounts.delete(ADMIN, names[0])
        await until(lambda: f"default/{names[0]}" not in second.core.directory.accounts, 1)


async def test_a_persons_change_elsewhere_is_followed(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        second = await nodes.add(role="api")
        await until(lambda: "default/a0" in second.core.directory.accounts)
        first.script.free.clear()
        ids = [await first.send(account="a0") for _ in range(4)]
        await first.script.calls(1)
        await second.service.actions.cancel(ADMIN, ids[1])
        await second.service.actions.patch(ADMIN, ids[3], {"priority": 9})
        await asyncio.sleep(0.3)
        first.script.free.set()
        for id_ in (ids[0], ids[2], ids[3]):
            assert (await second.ended(id_))["state"] == "completed"
        assert [id_ for id_, _ in first.script.sent] == [ids[0], ids[3], ids[2]]
        later = await second.send(account="a0", delay="300ms")
        assert (await second.ended(later))["state"] == "completed"
        again = await second.service.actions.retry(ADMIN, ids[1])
        assert again["id"] == ids[1]
        assert (await second.ended(ids[1]))["state"] == "completed"
