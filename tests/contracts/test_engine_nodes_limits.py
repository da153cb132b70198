"""Limits wider than a lane over several engines on one schema, judged by who receives the messages."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paceline.channels.base import Outgoing, SendingAccount
from paceline.model.outcomes import Accepted, Outcome
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.engine_group import Group, accounts, group, until
from tests.contracts.test_engine_support import ADMIN, Engine


class Receiver:
    """What all engines send arrives here, somewhere in the middle of each call."""

    def __init__(self, call_s: float = 0.01) -> None:
        self.call_s = call_s
        self.arrivals: list[tuple[float, str, int]] = []  # when, to whom, by which engine
        self.by_engine: dict[int, Engine] = {}
        self.ids: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    def join(self, engine: Engine) -> None:
        number = len(self.by_engine)
        self.by_engine[number] = engine

        async def send(message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
            queue = message.queue
            self._open[queue] += 1
            self.most[queue] = max(self.most[queue], self._open[queue])
            await asyncio.sleep(self.call_s / 2)
            self.arrivals.append((time.monotonic(), message.to[0], number))
            self.ids[message.id] += 1
            await asyncio.sleep(self.call_s / 2)
            self._open[queue] -= 1
            return Accepted("ref")

        engine.script.send = send  # type: ignore[method-assign]

    def exceeded(self, most: int, span_s: float, to: str | None = None) -> int:
        """Arrivals that found so many others within the window before them."""
        moments = sorted(at for at, name, _ in self.arrivals if to in (None, name))
        return sum(moments[n] - moments[n - most] < span_s for n in range(most, len(moments)))

    def shares(self) -> Counter[int]:
        return Counter(engine for _, _, engine in self.arrivals)


async def two(nodes: Group, receiver: Receiver, names: int = 16) -> tuple[Engine, Engine, list[str]]:
    """Two engines that have half of the accounts each, and send to the receiver."""
    first = await nodes.add()
    receiver.join(first)
    found = await accounts(first, names, concurrency=50)
    second = await nodes.add()
    receiver.join(second)
    await nodes.shared()
    await until(lambda: all(f"default/{name}" in second.core.directory.accounts for name in found))
    return first, second, found


async def everywhere(engines: tuple[Engine, Engine], fits: Callable[[Engine], Any]) -> None:
    await until(lambda: all(fits(engine) for engine in engines), 5)


async def test_one_limit_over_two_nodes_is_kept_and_used(tmp_path: Path) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        await second.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "60/500ms"})
        begun = time.monotonic()
        ids = [await (first, second)[n % 2].send(account=names[n % 16]) for n in range(540)]
        for id_ in ids:
            await first.ended(id_)
        took = receiver.arrivals[-1][0] - begun
    assert receiver.exceeded(60, 0.5) == 0
    assert sorted(receiver.ids) == sorted(ids)
    assert max(receiver.ids.values()) == 1
    assert min(receiver.shares().values()) > 540 * 0.1
    assert took < 8 * 0.51 / 0.5  # twice what a quiet machine takes


async def test_a_recipient_is_not_sent_more_by_two_nodes_than_by_one(tmp_path: Path) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        scope = {"recipient": "*", "channel": "script"}
        await first.service.limits.put(ADMIN, "each", {"scope": scope, "limit": "2/400ms"})
        await everywhere((first, second), lambda e: e.core.directory.rules)
        people = ("ann", "bob", "carl")
        ids = [await (first, second)[n % 2].send(account=names[n % 16], to=people[n % 3]) for n in range(48)]
        for id_ in ids:
            await first.ended(id_)
    for name in people:
        assert receiver.exceeded(2, 0.4, name) == 0
    assert len(receiver.arrivals) == 48


async def test_a_queues_concurrency_is_that_of_all_nodes(tmp_path: Path) -> None:
    receiver = Receiver(0.04)
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        await first.service.queues.put(ADMIN, "sms", {"concurrency": 3})
        await everywhere((first, second), lambda e: e.core.directory.queue("sms").concurrency == 3)
        begun = time.monotonic()
        ids = [await (first, second)[n % 2].send(account=names[n % 16], queue="sms") for n in range(150)]
        for id_ in ids:
            await first.ended(id_)
        took = receiver.arrivals[-1][0] - begun
    assert receiver.most["sms"] == 3
    assert min(receiver.shares().values()) > 15
    assert took < 50 * 0.04 / 0.4  # each call is followed by two commits on a busy machine


async def test_a_node_without_work_leaves_its_places_to_the_other(tmp_path: Path) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        mine = [n for n in names if first.core.owns_lane(first.core.directory.accounts[f"default/{n}"].lane)]
        theirs = [n for n in names if n not in mine]
        await first.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "40/500ms"})
        await everywhere((first, second), lambda e: e.core.directory.rules)
        for name in (theirs[0], mine[0]):  # first one node has all places, then the other one wants them
            begun = time.monotonic()
            ids = [await first.send(account=name) for _ in range(240)]
            for id_ in ids:
                await first.ended(id_)
            assert receiver.arrivals[-1][0] - begun < 6 * 0.51 / 0.5
    assert receiver.exceeded(40, 0.5) == 0
    assert sorted(receiver.shares().values()) == [240, 240]


async def test_limits_changed_while_both_send(tmp_path: Path) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        put = first.service.limits.put
        scope: dict[str, Any] = {"scope": {"tenant": "default"}}
        await put(ADMIN, "all", scope | {"limit": "20/400ms"})
        ids = [await (first, second)[n % 2].send(account=names[n % 16]) for n in range(300)]
        await asyncio.sleep(1)
        before = len(receiver.arrivals)
        await second.service.limits.put(ADMIN, "all", scope | {"limit": "5/400ms"})
        tight = time.monotonic()
        await asyncio.sleep(1.5)
        during = [at for at, _, _ in receiver.arrivals if at > tight + 0.05]
        assert receiver.exceeded(20, 0.4) == 0
        assert max(sum(start <= at < start + 0.4 for at in during) for start in during) <= 5
        await second.service.limits.delete(ADMIN, "all")
        for id_ in ids:
            await first.ended(id_)
    assert before >= 40
    assert len(during) >= 10
    assert len(receiver.arrivals) == 300


async def test_a_refusal_says_which_limit_and_until_when_and_costs_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        await first.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "4/h"})
        await everywhere((first, second), lambda e: e.core.directory.rules)
        mine = next(
            n for n in names if first.core.owns_lane(first.core.directory.accounts[f"default/{n}"].lane)
        )
        theirs = next(
            n
            for n in names
            if n != mine and second.core.owns_lane(second.core.directory.accounts[f"default/{n}"].lane)
        )
        for _ in range(4):
            await first.ended(await first.send(account=mine))
        held = await second.send(account=theirs)
        places = second.core.dispatcher.places
        assert places is not None
        await until(lambda: places.refusals)
        view = await second.service.messages.get(ADMIN, held)
        assert (view["state"], view["attempts"]) == ("pending", 0)
        told = await second.service.messages.why(ADMIN, held)
        (limit,) = [reason for reason in told["reasons"] if reason["kind"] == "limit"]
        assert "limit 4/h of limit all" in limit["text"]
        assert limit["until"] is not None
        before, commits = places.refusals, (await second.store.health())["commits"]
        await asyncio.sleep(1.0)
        assert places.refusals - before <= 1  # it waits for that moment
        assert (await second.store.health())["commits"] - commits <= 25
        view = await second.service.limits.get(ADMIN, "all")
        assert (view["used"], view["until"] is not None) == (4, True)
        account = (await second.service.accounts.get(ADMIN, theirs))["usage"]
        assert account == [] or all(each["used"] == 0 for each in account)


async def test_where_nobody_knows_until_when_it_is_asked_again_and_not_all_the_time(tmp_path: Path) -> None:
    receiver = Receiver(1.5)
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        await first.service.queues.put(ADMIN, "sms", {"concurrency": 2})
        await everywhere((first, second), lambda e: e.core.directory.queue("sms").concurrency == 2)
        mine = next(
            n for n in names if first.core.owns_lane(first.core.directory.accounts[f"default/{n}"].lane)
        )
        theirs = next(
            n for n in names if second.core.owns_lane(second.core.directory.accounts[f"default/{n}"].lane)
        )
        long = [await first.send(account=mine, queue="sms") for _ in range(2)]
        await until(lambda: receiver.most["sms"] == 2)
        waits = [await second.send(account=theirs, queue="sms") for _ in range(30)]
        places = second.core.dispatcher.places
        assert places is not None
        await until(lambda: places.refusals)
        why = await second.service.messages.why(ADMIN, waits[0])
        assert [r["kind"] for r in why["reasons"] if r["kind"] != "line"] == ["concurrency"]
        before = places.refusals
        await asyncio.sleep(0.5)
        assert places.refusals - before <= 2 * 12
        for id_ in long:
            await first.ended(id_)
        begun = time.monotonic()
        await until(lambda: len(receiver.arrivals) >= 4)
        assert time.monotonic() - begun < 1.5
        for id_ in waits[2:]:
            await second.service.actions.cancel(ADMIN, id_)


async def test_a_second_node_takes_what_waits_under_a_limit_when_the_first_one_is_gone(
    tmp_path: Path,
) -> None:
    receiver = Receiver()
    async with group(tmp_path) as nodes:
        first, second, names = await two(nodes, receiver)
        await first.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "10/600ms"})
        await everywhere((first, second), lambda e: e.core.directory.rules)
        ids = [await second.send(account=names[n % 16]) for n in range(60)]
        await asyncio.sleep(0.3)
        nodes.engines.remove(first)
        await first.service.close(1)
        for id_ in ids:
            await second.ended(id_)
    assert receiver.exceeded(10, 0.6) == 0
    assert len(receiver.arrivals) == 60


async def test_limits_that_were_configured_before_the_store_counted_them(tmp_path: Path) -> None:
    """As after an upgrade, or when a store was moved here."""
    async with group(tmp_path) as nodes:
        first = await nodes.add()
        await first.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "2/h"})
        await first.service.queues.put(ADMIN, "sms", {"concurrency": 7})
        assert isinstance(first.store, PostgresStore)
        await first.store.nodes.set_wide([], ["limit/all", "queue/sms"], first.core.clock.now())
        second = await nodes.add()
        _, known = await first.store.nodes.wide()
        assert [(each.name, each.maximum) for each in known] == [("limit/all", 2), ("queue/sms", 7)]
        await nodes.shared()
        ids = [await second.send(account="a0") for _ in range(3)]
        await until(lambda: len(first.script.sent + second.script.sent) == 2)
        await asyncio.sleep(0.3)
        assert Counter([await first.state(id_) for id_ in ids])["pending"] == 1
