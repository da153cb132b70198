"""The relay between an application's outbox and the engine, on real databases of both kinds."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from paceline import Paceline, wiring
from paceline.config import load
from paceline.engine import relay as relays
from paceline.engine.doctor_findings import Patient
from paceline.engine.doctor_outbox import outboxes
from paceline.model.errors import InvalidError, NotFoundError, Problem, UnavailableError
from paceline.stores.base import Filter, StoredMessage
from paceline.stores.outbox import LARGEST, OutboxRow, OutboxSource, Refusal
from tests.contracts.stores.outboxes import KINDS, App, body, until
from tests.contracts.test_engine_support import ADMIN, Engine, running


@pytest.fixture(params=KINDS)
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> App:
    made = App(request.param, tmp_path)
    await made.begin()
    return made


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        yield made


class Held:
    """A source whose `finish` waits until it is let go: what was added is acknowledged, and not yet deleted."""

    def __init__(self, source: OutboxSource) -> None:
        self._source = source
        self.open, self.close, self.next, self.wait = source.open, source.close, source.next, source.wait
        self.free = asyncio.Event()
        self.reached = asyncio.Event()

    async def finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
        self.reached.set()
        await self.free.wait()
        await self._source.finish(taken, refused, now)


async def messages(engine: Engine, **wanted: tuple[str, ...]) -> list[StoredMessage]:
    """Every message, in the order in which they were taken in."""
    return [row async for page in engine.store.export(Filter(**wanted)) for row in page][::-1]  # type: ignore[arg-type]  # texts only


def texts(rows: Sequence[StoredMessage]) -> list[str]:
    return [json.loads(row.content)["text"] for row in rows]


async def test_a_message_exists_if_and_only_if_the_transaction_was_committed(
    app: App, engine: Engine
) -> None:
    app.relay(engine)
    await app.write([body("undone")], commit=False)
    await app.write([body("done")])
    await app.empty()
    (row,) = await messages(engine)
    assert texts([row]) == ["done"]
    assert (await engine.ended(engine.script.sent[0][0]))["state"] == "completed"
    assert await app.left() == 0 and await app.ask("SELECT count(*) FROM own") == [(1,)]


async def test_a_relay_that_dies_between_adding_and_deleting_adds_nothing_twice(
    app: App, engine: Engine
) -> None:
    held: list[Held] = []

    def hold(source: OutboxSource) -> OutboxSource:
        held.append(Held(source))
        return held[0]

    await app.write([body(f"m{number}") for number in range(20)])
    first = app.relay(engine, hold)
    await held[0].reached.wait()
    assert len(await messages(engine)) == 20 and await app.left() == 20
    await first.stop()
    engine.service.relays.all.clear()
    assert await app.left() == 20
    app.relay(engine)
    await app.empty()
    assert sorted(texts(await messages(engine))) == sorted(f"m{number}" for number in range(20))
    assert await app.left() == 0


async def test_a_refused_row_stays_with_its_error_and_blocks_no_other(app: App, engine: Engine) -> None:
    bad = [
        "{",
        "[]",
        body("x", nonsense=1),
        body("x", account="missing"),
        body("x", tenant="other"),
        body("x", priority=99),
        body("\ud800"),
    ]
    await app.write([body("before"), *bad, body("after")])
    relay = app.relay(engine)
    await app.empty()
    assert texts(await messages(engine)) == ["before", "after"]
    rows = await app.desk().rows(refused=True, most=100)
    assert [row.message for row in rows] == bad and all(row.refused_at for row in rows)
    whys = [row.error or "" for row in rows]
    for found, wanted in zip(whys, ["not JSON", "JSON object", "nonsense", "missing", "tenant", "priority", ""],
                             strict=True):  # fmt: skip
        assert wanted in found and found
    said = await outboxes(Patient(engine.core, {}, True, [relay]))
    assert said.status == "warn" and "7 rows were refused" in said.detail


async def test_a_refused_row_is_tried_again_or_discarded_by_its_key(app: App, engine: Engine) -> None:
    relay = app.relay(engine)
    await app.write([body("early", account="late"), body("never", nonsense=1)])
    await app.empty()
    early, never = await app.desk().rows(refused=True, most=10)
    await engine.account("late")
    assert await app.desk().retry([early.key]) == 1
    await until(lambda: _taken(relay, 1))
    assert texts(await messages(engine)) == ["early"]
    assert await app.desk().retry([]) == 1  # all that is left, and it is refused again
    await until(lambda: _refused(relay, 3))
    assert await app.desk().discard([never.key, "unknown"]) == 1
    assert await app.left() == 0


async def _taken(relay: relays.Relay, count: int) -> bool:
    return relay.taken == count


async def _refused(relay: relays.Relay, count: int) -> bool:
    return relay.refused == count


@pytest.mark.slow
async def test_ten_thousand_rows_keep_their_order(app: App, engine: Engine) -> None:
    await engine.service.holds.hold(ADMIN, {})
    wanted = [f"m{number}" for number in range(10_000)]
    for start in range(0, 10_000, 1000):
        await app.write([body(text) for text in wanted[start : start + 1000]])
    app.relay(engine)
    await until(lambda: app._waits(0), 100)
    assert texts(await messages(engine)) == wanted


async def test_an_outbox_belongs_to_one_tenant(app: App, engine: Engine) -> None:
    app.relay(engine, tenant="acme")
    await app.write([body("x"), body("y", tenant="acme")])
    await app.empty()
    assert {row.tenant for row in await messages(engine)} == {"acme"}
    assert len(await messages(engine)) == 2


async def test_a_commit_wakes_the_relay(app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "LOOK_S", 3600.0)
    relay = app.relay(engine)
    await until(lambda: _at_rest(relay))
    for number in range(3):
        await app.write([body(f"m{number}")])
        await app.empty()
    assert texts(await messages(engine)) == ["m0", "m1", "m2"]


async def _at_rest(relay: relays.Relay) -> bool:
    return not relay.away and relay.cleanable is None


async def test_a_moment_that_passed_in_the_outbox_means_now_and_is_still_the_same_message(
    app: App, engine: Engine
) -> None:
    held: list[Held] = []

    def hold(source: OutboxSource) -> OutboxSource:
        held.append(Held(source))
        return held[0]

    soon = engine.later(0.3)
    await app.write([body("old", scheduled_at="2001-01-01T00:00:00Z"), body("soon", scheduled_at=soon)])
    first = app.relay(engine, hold)
    await held[0].reached.wait()
    await first.stop()
    engine.service.relays.all.clear()
    await asyncio.sleep(0.4)
    app.relay(engine)
    await app.empty()
    assert await app.desk().rows(refused=True, most=10) == []
    assert sorted(texts(await messages(engine))) == ["old", "soon"]


async def test_a_key_of_the_applications_own_choice_is_kept(app: App, engine: Engine) -> None:
    app.relay(engine)
    await app.write([body("one", idempotency_key="order-1"), body("one", idempotency_key="order-1")])
    await app.write([body("another", idempotency_key="order-1")])
    await app.empty()
    assert texts(await messages(engine)) == ["one"]
    (refused,) = await app.desk().rows(refused=True, most=10)
    assert "idempotency key" in (refused.error or "") and "another" in refused.message


async def test_nothing_is_cleaned_that_may_still_have_its_row(app: App, engine: Engine) -> None:
    """The key goes with its message: cleaned too early, the row would be sent a second time."""
    held: list[Held] = []

    def hold(source: OutboxSource) -> OutboxSource:
        held.append(Held(source))
        return held[-1]

    await engine.service.queues.put(ADMIN, "notification", {"retention": {"count": 0}})
    first = app.relay(engine, hold)
    await until(lambda: _at_rest(first))
    await engine.send(text="another")
    await engine.ended((await engine.script.calls(1))[0][0])
    await asyncio.sleep(0.01)  # so that the two are not of the same millisecond
    await app.write([body("once")])
    await engine.ended((await engine.script.calls(2))[1][0])
    await held[0].reached.wait()
    await asyncio.sleep(0.01)
    await engine.core.upkeep._clean()
    assert texts(await messages(engine)) == ["once"]
    await first.stop()
    engine.service.relays.all.clear()
    second = app.relay(engine, hold)
    await engine.core.upkeep._clean()  # before the new one has read anything: nothing at all may go
    await held[1].reached.wait()
    held[1].free.set()
    await until(lambda: _at_rest(second))
    assert len(engine.script.sent) == 2
    await engine.core.upkeep._clean()
    assert await messages(engine) == []


async def test_large_rows_are_read_a_few_at_a_time_and_too_large_ones_not_at_all(
    app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []

    class Counting(Held):
        async def finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
            rows = [*taken, *(each.row for each in refused)]
            read.append((len(rows), sum(len(row.message) for row in rows)))
            await self._source.finish(taken, refused, now)

    await engine.service.holds.hold(ADMIN, {})
    large = "x" * 3_000_000
    await app.write([*[body(large)] * 6, body("x" * LARGEST), body("small")])
    app.relay(engine, Counting)
    await app.empty()
    assert max(size for _, size in read) < relays.BYTES
    assert len(read) >= 3 and sum(count for count, _ in read) == 8
    (refused,) = await app.desk().rows(refused=True, most=10)
    assert "larger than 16 MiB" in (refused.error or "") and len(refused.message) == 2000


async def test_only_one_relay_reads_an_outbox(app: App, engine: Engine) -> None:
    first = app.relay(engine)
    await until(lambda: _at_rest(first))
    second = app.relay(engine)
    await until(lambda: _says(second, "another process relays"))
    await first.stop()
    await until(lambda: _at_rest(second))


async def test_of_several_nodes_the_one_that_cleans_relays(app: App, engine: Engine) -> None:
    core = engine.core
    every, core.owned = core.owned, frozenset({1})
    relay = app.relay(engine)
    await app.write([body("x")])
    await asyncio.sleep(0)
    assert (relay.cleanable, relay.taken) == (0, 0)
    core.owned = every
    await until(lambda: _at_rest(relay))
    assert relay.taken == 1
    core.owned = frozenset({1})
    await app.write([body("y")])
    await until(lambda: _passed_on(relay))
    assert (relay.taken, await app.left()) == (1, 1)


async def _passed_on(relay: relays.Relay) -> bool:
    """Nothing is cleaned for it any more: what another node relayed meanwhile is unknown."""
    return relay.cleanable == 0


async def _says(relay: relays.Relay, words: str) -> bool:
    return words in relay.away


async def test_an_outbox_that_is_not_there_yet_is_waited_for(tmp_path: Path, engine: Engine) -> None:
    for kind in KINDS:
        app = App(kind, tmp_path)
        relay = app.relay(engine)
        await until(lambda relay=relay: _says(relay, "paceline outbox create"))  # type: ignore[misc]  # a default of its own
        said = await outboxes(Patient(engine.core, {}, True, [relay]))
        assert said.status == "fail" and "paceline outbox create" in said.detail
        with pytest.raises(NotFoundError):
            await app.desk().facts()
        if kind == "postgresql":
            await app.begin()
        else:
            await app.desk().create(bell=True)
            await app.ask("CREATE TABLE own (n)")
        await app.write([body(kind)])
        await app.empty()
    assert texts(await messages(engine)) == list(KINDS)


async def test_a_lost_connection_is_made_again(tmp_path: Path, engine: Engine) -> None:
    app = App("postgresql", tmp_path)
    await app.begin()
    relay = app.relay(engine)
    await until(lambda: _at_rest(relay))
    await app.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'paceline outbox'"
    )
    await app.write([body("x")])
    await app.empty()
    assert texts(await messages(engine)) == ["x"] and not relay.away


async def test_a_file_that_was_replaced_is_opened_again(tmp_path: Path, engine: Engine) -> None:
    app = App("sqlite", tmp_path)
    await app.begin()
    relay = app.relay(engine)
    await until(lambda: _at_rest(relay))
    for end in ("", "-wal", "-shm"):
        app.file.with_name(app.file.name + end).rename(tmp_path / f"old{end}")
    await app.begin()
    await app.write([body("x")])
    await app.empty()
    assert texts(await messages(engine)) == ["x"]


async def test_while_the_store_cannot_write_the_rows_stay(
    app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = app.relay(engine)
    await until(lambda: _at_rest(relay))
    add = engine.service.messages.add_all

    async def away(_prepared: object) -> list[object]:
        raise UnavailableError("the disk is full")

    monkeypatch.setattr(engine.service.messages, "add_all", away)
    await app.write([body("x")])
    await until(lambda: _says(relay, "the disk is full"))
    assert await app.left() == 1
    monkeypatch.setattr(engine.service.messages, "add_all", add)
    await app.empty()
    assert texts(await messages(engine)) == ["x"]


async def test_a_row_of_a_store_that_cannot_keep_it_is_refused_alone(
    app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store refuses a call as a whole; the others of the batch must not go with the culprit."""
    add = engine.service.messages.add_all

    async def picky(prepared: Sequence[object]) -> object:
        if any("bad" in str(each) for each in prepared):
            raise InvalidError([Problem("", "contains what cannot be stored")])
        return await add(prepared)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(engine.service.messages, "add_all", picky)
    await app.write([body("a"), body("bad"), body("b")])
    app.relay(engine)
    await app.empty()
    assert texts(await messages(engine)) == ["a", "b"]
    (refused,) = await app.desk().rows(refused=True, most=10)
    assert "cannot be stored" in (refused.error or "")


async def test_an_engine_inside_an_application_relays_nothing(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SQLite beside the application's own would undo the locks of both."""
    with pytest.raises(InvalidError, match="by a server"):
        async with Paceline(data=tmp_path / "data", outbox=[app.url]):
            pass
    monkeypatch.setenv("PACELINE_OUTBOX", app.url)
    await app.write([body("x")])
    service = await wiring.open_service(load({"data": tmp_path / "data"}, os.environ))
    assert service.relays.all == []
    await service.close(1)
    assert await app.left() == 1
