"""The wall clock was moved while the server was away: limits hold, and nothing waits longer than its window."""

from pathlib import Path

import pytest

from bench.engine import Noop
from paceline.clock import ManualClock
from paceline.engine import moves
from paceline.engine.core import Core, Options
from paceline.engine.moves import clock_moves
from paceline.engine.recovery import restore_gates, settle_open
from paceline.engine.secrets import Vault
from paceline.model.accounts import AccountSpec
from paceline.model.limits import parse_limit
from paceline.model.messages import Mark
from paceline.pacing.lane import Account
from paceline.stores.sqlite import SqliteStore

START = 1_700_000_000_000
HOUR, MINUTE = 3_600_000, 60_000


class World:
    """An engine that is started and ended by hand; its clock moves only when told to, and does no I/O of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.offset = 0
        self.set_since = 0  # what the wall clock was set by after the process had read it
        monkeypatch.setattr(moves, "boot_reading", lambda: ("this-boot", self.offset))

    async def open(self, now: int) -> Core:
        store = SqliteStore(self.folder / "clock.db")
        await store.open(now)
        clock = ManualClock(now)
        clock.step = self.set_since
        core = Core(
            store,
            {"noop": Noop()},
            clock,
            Vault(bytes(32)),
            lambda: 0.5,
            lambda _url: None,
            Options(),
        )
        core.directory.set_account(
            AccountSpec(
                owner="default", name="a", channel="noop", limits=(parse_limit("3/min"),), concurrency=9
            )
        )
        core.gates.moves = await clock_moves(store, core.clock)
        await settle_open(store, core.directory, core.clock)
        await restore_gates(store, core.agenda, core.directory, core.gates)
        return core

    async def hand_over(self, core: Core, count: int) -> None:
        """Store messages and mark them as handed over, as the dispatcher does; then the process is gone."""
        now = core.clock.now()
        body = {"channel": "noop", "account": "a", "to": "r", "text": "t"}
        prepared = [core.intake.prepare(body, "default", now) for _ in range(count)]
        await core.store.add([p.row for p in prepared], [prepared[0].flow], now)
        marks = [Mark(p.row.id, p.row.flow, "default/a", now) for p in prepared]
        assert len(await core.store.hand_over(marks, now)) == count
        await core.store.close()


def gate_of(core: Core) -> Account:
    gate = core.gates.account("default/a")
    assert gate is not None
    return gate


@pytest.mark.parametrize(
    "moved", [0, -HOUR, HOUR, -30 * 24 * HOUR, 30 * 24 * HOUR], ids=["not", "-1h", "+1h", "-30d", "+30d"]
)
@pytest.mark.parametrize("boot_known", [True, False])
async def test_a_full_window_stays_full_when_the_clock_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, moved: int, boot_known: bool
) -> None:
    world = World(tmp_path, monkeypatch)
    await world.hand_over(await world.open(START), 3)
    core = await world.open(
        START + 1000
    )  # it ends what was open; the journal now says: finished at that moment
    assert gate_of(core).opens(START + 1000) == START + 1000 + MINUTE
    await core.store.close()
    now = START + 1000 + 5000 + moved
    world.offset = moved
    if not boot_known:
        monkeypatch.setattr(moves, "boot_reading", lambda: None)
    core = await world.open(now)
    opens = gate_of(core).opens(now)
    await core.store.close()
    if boot_known or not moved:
        assert opens == now - 5000 + MINUTE  # as if nobody had touched the clock
    elif moved < 0:
        assert opens == now + MINUTE  # unknown when they were: the longest it can be, and not an hour more
    # Without a reading of the boot a clock set forward cannot be told from time that passed.


@pytest.mark.parametrize("moved", [-HOUR, HOUR])
async def test_a_clock_that_is_set_during_the_start_is_not_taken_for_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, moved: int
) -> None:
    world = World(tmp_path, monkeypatch)
    await world.hand_over(await world.open(START), 3)
    world.offset = world.set_since = moved  # after the clock of this run was anchored
    now = START + 1000
    core = await world.open(now)
    assert gate_of(core).opens(now) == now + MINUTE
    assert core.gates.moves.latest == 0
    await core.store.close()
    world.set_since = 0
    core = await world.open(now + 5000 + moved)  # the next run finds it moved
    assert gate_of(core).opens(core.clock.now()) == now + MINUTE + moved
    await core.store.close()


async def test_a_flood_wait_is_moved_with_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paceline.model.messages import AccountNote

    world = World(tmp_path, monkeypatch)
    core = await world.open(START)
    await core.store.settle((), [AccountNote("default/a", flood_until=START + MINUTE)], (), (), START)
    await core.store.close()
    for moved in (-HOUR, HOUR):
        world.offset += moved
        core = await world.open(START + 1000 + world.offset)
        assert gate_of(core).opens(core.clock.now()) == START + MINUTE + moved
        await core.store.close()
        world.offset -= moved
        await (await world.open(START + 1000)).store.close()


@pytest.mark.parametrize("moved", [-HOUR, HOUR, 300, -300])
async def test_a_window_stays_full_over_the_runs_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, moved: int
) -> None:
    world = World(tmp_path, monkeypatch)
    await world.hand_over(await world.open(START), 3)
    await (await world.open(START + 1000)).store.close()  # finished at that moment, says the journal
    world.offset = moved
    for later in (5000, 6000, 7000):
        now = START + 1000 + later + moved
        core = await world.open(now)
        opens = gate_of(core).opens(now)
        await core.gates.set_account(core.directory.accounts["default/a"])
        again = gate_of(core).opens(now)
        await core.store.close()
        assert now - later + MINUTE <= opens <= now + MINUTE
        assert again >= now - later + MINUTE


async def test_sends_after_a_move_back_count_although_older_ones_seem_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    await world.hand_over(await world.open(START), 3)
    await (await world.open(START + 1000)).store.close()
    world.offset = -HOUR
    now = START + 2 * MINUTE - HOUR  # what was sent before the move is out of every window
    await world.hand_over(await world.open(now), 3)
    core = await world.open(now + 1000)
    assert gate_of(core).opens(now + 1000) == now + 1000 + MINUTE
    await core.store.close()


async def test_a_restart_of_the_machine_does_not_undo_what_is_known_of_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    await (await world.open(START)).store.close()
    world.offset = -HOUR
    await world.hand_over(await world.open(START + 1000 - HOUR), 3)
    await (await world.open(START + 2000 - HOUR)).store.close()
    monkeypatch.setattr(moves, "boot_reading", lambda: ("next-boot", -2 * HOUR))
    now = START + 3000 - 2 * HOUR
    core = await world.open(now)
    assert gate_of(core).opens(now) == now + MINUTE
    await core.store.close()
