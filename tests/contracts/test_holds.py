"""The hold: nothing is sent, over restarts, and a release that does not repeat what another has sent."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from paceline.clock import ManualClock
from paceline.engine import installation
from paceline.engine.keys import DeniedError
from paceline.model.checks import print_time
from paceline.model.errors import ConflictError, InvalidError
from paceline.stores.base import Document
from tests.contracts.test_engine_support import ACME, ADMIN, Engine, role, running

pytestmark = [pytest.mark.every_store, pytest.mark.usual]

START = 1_750_000_000_000


async def settled() -> None:
    """Let everything that could be released be released."""
    for _ in range(50):
        await asyncio.sleep(0)


def is_ready(engine: Engine) -> bool:
    return engine.service.ready


async def test_on_hold_nothing_is_sent_and_every_message_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.service.holds.hold(ADMIN, {"reason": "moving"})
        id_ = await engine.send()
        receipt = await engine.service.messages.submit(
            ADMIN, {"channel": "script", "to": "b", "text": "t", "delay": "1h"}
        )
        await settled()
        assert engine.script.sent == []
        why = await engine.service.messages.why(ADMIN, id_)
        assert why["eta"] is None
        assert why["reasons"][0]["kind"] == "held"
        assert "root key asked for it: moving" in why["reasons"][0]["text"]
        eta, reasons = engine.service.messages.outlook(receipt)  # what a sender is answered
        assert eta is None and reasons[0]["kind"] == "held"
        assert not is_ready(engine)
        assert "paceline release" in engine.service.state["reasons"][0]
        overview = await engine.service.watch.overview(ADMIN)
        assert overview["hold"]["cause"] == "asked"
        scheduler = await engine.service.watch.start(ADMIN)  # the scheduler is another switch
        assert scheduler["is_running"] is False and "hold" in scheduler["detail"]
        (check,) = [c for c in await engine.service.doctor() if c["name"] == "hold"]
        assert not check["ok"] and "paceline release" in check["advice"]
        await settled()
        assert engine.script.sent == []
        assert await engine.service.holds.release(ADMIN, {}, False) == {"held": False, "cancelled": 0}
        assert await engine.script.calls(1) == [(id_, "a0")]
        assert is_ready(engine)
        assert (await engine.service.watch.overview(ADMIN))["hold"] == {"held": False}


async def test_a_hold_that_is_told_twice_ends_with_one_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared store a node hears of its own change, maybe before the answer to its write."""
    async with running(tmp_path) as engine:
        holds, put = engine.service.holds, engine.store.put

        async def told(documents: Sequence[Document], shift_waits: int = 0) -> None:
            await put(documents, shift_waits)
            known = installation.read(documents)
            if known.hold is not None:  # of the release it hears later
                holds.follow(known)

        monkeypatch.setattr(engine.store, "put", told)
        await holds.hold(ADMIN, {})
        id_ = await engine.send()
        await holds.release(ADMIN, {}, False)
        assert await engine.script.calls(1) == [(id_, "a0")]
        await holds.hold(ADMIN, {})
        await engine.send()
        await settled()
        assert len(engine.script.sent) == 1


async def test_a_hold_outlives_the_process_and_a_release_as_well(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.service.holds.hold(ADMIN, {})
        id_ = await engine.send()
    async with running(tmp_path) as engine:
        await settled()
        assert engine.script.sent == []
        assert engine.service.holds.status(ADMIN)["cause"] == "asked"
        await engine.service.holds.release(ADMIN, {}, False)
        assert await engine.script.calls(1) == [(id_, "a0")]
    async with running(tmp_path) as engine:
        assert engine.service.holds.status(ADMIN) == {"held": False}


@pytest.mark.only_sqlite
async def test_a_release_cancels_what_was_due_before_a_moment_and_came_with_the_copy(tmp_path: Path) -> None:
    clock = ManualClock(START)
    original, copied = tmp_path / "original", tmp_path / "copied"
    original.mkdir()
    copied.mkdir()
    async with running(original, clock) as engine:
        engine.script.free.clear()
        under_way = await engine.send()
        await engine.script.calls(1)
        early, late = await engine.send(), await engine.send(delay="10m")
        clock.advance(1000)
        await engine.store.copy(copied / "queue.db", clock.now())
        engine.script.free.set()
    clock.advance(60_000)
    async with running(copied, clock) as engine:
        own = await engine.send()
        assert await engine.state(under_way) == "uncertain"
        stopped = print_time(clock.advance(60_000))
        counted = await engine.service.holds.release(ADMIN, {"cancel_before": stopped}, True)
        assert counted == {"held": True, "waiting": 3, "would_cancel": 1}
        assert engine.service.holds.held is not None
        done = await engine.service.holds.release(ADMIN, {"cancel_before": stopped}, False)
        assert done == {"held": False, "cancelled": 1}
        assert await engine.script.calls(1) == [(own, "a0")]
        assert (await engine.state(early), await engine.state(late)) == ("cancelled", "scheduled")
        assert [call[0] for call in engine.script.sent] == [own]


async def test_who_may_hold_and_release_and_with_what(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        holds = engine.service.holds
        with pytest.raises(ConflictError, match="nothing is on hold"):
            await holds.release(ADMIN, {}, False)
        for caller in (ACME, role("sender")):
            with pytest.raises(DeniedError):
                await holds.hold(caller, {})
        await holds.hold(role("operator"), {})
        for caller in (ACME, role("operator")):
            with pytest.raises(DeniedError):
                await engine.service.backups.make(caller, {})
            with pytest.raises(DeniedError):
                await engine.service.backups.list(caller)
        since = holds.status(ADMIN)["since"]
        await holds.hold(ADMIN, {"reason": "again"})
        assert holds.status(ADMIN)["since"] == since  # the first reason stays
        assert "operator key" in holds.status(ADMIN)["text"]
        assert "operator key" not in holds.status(ACME)["text"]  # another tenant's business
        for caller in (ACME, role("operator")):
            with pytest.raises(DeniedError):
                await holds.release(caller, {}, False)
        wrong: tuple[object, ...] = ({"cancel_before": "yesterday"}, {"cancel_before": 5}, {"what": 1}, [])
        for body in wrong:
            with pytest.raises(InvalidError):
                await holds.release(ADMIN, body, False)
        assert holds.held is not None


async def test_two_releases_at_once_open_once(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.service.holds.hold(ADMIN, {})
        done = await asyncio.gather(
            *(engine.service.holds.release(ADMIN, {}, False) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in done) == ["ConflictError", "dict"]
        await engine.service.holds.hold(ADMIN, {})
        await engine.send()
        await settled()
        assert engine.script.sent == []


@pytest.mark.only_sqlite
async def test_a_folder_copied_by_hand_starts_on_hold(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with running(first) as engine:
        await engine.service.holds.hold(ADMIN, {})
        await engine.service.holds.release(ADMIN, {}, False)
    second.mkdir()
    for file in first.iterdir():
        (second / file.name).write_bytes(file.read_bytes())
    first.rename(tmp_path / "moved")
    async with running(tmp_path / "moved") as engine:
        assert engine.service.holds.held is None
    async with running(second) as engine:
        assert engine.service.holds.status(ADMIN)["cause"] == "copied"
        await engine.service.holds.release(ADMIN, {}, False)
    async with running(second) as engine:
        assert engine.service.holds.held is None
