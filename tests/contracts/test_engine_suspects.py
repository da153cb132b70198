"""What becomes of messages that were under way at a crash: again, apart, and set aside at the third time."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline.engine import suspects
from paceline.engine.suspects import crashes_in_a_row
from paceline.model.outcomes import Temporary
from paceline.stores.base import Attempt
from tests.contracts.test_engine_support import ADMIN, Engine


@asynccontextmanager
async def after(crashed: Engine | None, folder: Path) -> AsyncIterator[Engine]:
    """An engine on what a crash of the one before would have left: its files as they are at this moment."""
    folder.mkdir()
    if crashed is not None:
        for path in crashed.folder.glob("queue.db*"):
            shutil.copy(path, folder)
    engine = Engine(folder)
    vars(engine.script)["repeat_is_safe"] = True  # this one object, in this suite only
    engine.script.free.clear()
    await engine.service.start(None)
    if crashed is not None:
        await engine.service.holds.release(ADMIN, {}, dry_run=False)  # files that are somewhere else are held
    if crashed is None:
        await engine.account("a0", shared=True, concurrency=4)
    try:
        yield engine
    finally:
        engine.script.free.set()
        await engine.service.close(5)


def ids(engine: Engine) -> list[str]:
    return [id_ for id_, _ in engine.script.sent]


async def view(engine: Engine, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = await engine.service.messages.get(ADMIN, id_)
    return found


async def nothing_more(engine: Engine, count: int) -> None:
    """Whatever may go has gone: a whole way through the store, and then some turns of the loop."""
    await engine.store.settle((), (), (), (), 0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(engine.script.sent) == count


async def test_after_one_crash_all_go_again_at_once_and_lose_no_attempt(tmp_path: Path) -> None:
    async with after(None, tmp_path / "0") as first:
        sent = [await first.send(text=f"t{n}", max_attempts=1) for n in range(4)]
        await first.script.calls(4)
        async with after(first, tmp_path / "1") as second:
            await second.script.calls(4)
            second.script.free.set()
            views = [await second.ended(id_) for id_ in sent]
    assert [(each["state"], each["attempts"]) for each in views] == [("completed", 1)] * 4


async def test_after_two_crashes_suspects_go_one_by_one_and_nothing_beside_them(tmp_path: Path) -> None:
    async with after(None, tmp_path / "0") as first:
        sent = [await first.send(text=f"t{n}") for n in range(3)]
        await first.script.calls(3)
        async with after(first, tmp_path / "1") as second:
            await second.script.calls(3)
            late = await second.send(text="never under way", account="a0")
            second.script.outcomes = []
            await second.script.calls(4)
            later = await second.send(text="not yet under way")
            async with after(second, tmp_path / "2") as third:
                newcomer = await third.send(text="new", priority=10)
                await third.script.calls(1)
                await nothing_more(third, 1)
                why = [reason["kind"] for reason in (await view(third, newcomer))["why"]]
                assert "after-crash" in why
                third.script.free.set()
                for id_ in (*sent, late, later, newcomer):
                    assert (await third.ended(id_))["state"] == "completed"
                assert ids(third)[:3] == sent
                assert set(ids(third)[3:]) == {late, later, newcomer}
                assert not third.core.suspects.waiting


async def test_a_slow_suspect_holds_others_up_for_some_seconds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALONE_S", 0)
    async with after(None, tmp_path / "0") as first:
        sent = [await first.send(text=f"t{n}") for n in range(2)]
        await first.script.calls(2)
        async with after(first, tmp_path / "1") as second:
            await second.script.calls(2)
            async with after(second, tmp_path / "2") as third:
                newcomer = await third.send(text="new")
                await third.script.calls(2)
                assert ids(third) == [sent[0], newcomer]  # the other suspect waits for the first
                await nothing_more(third, 2)
                third.script.free.set()
                assert (await third.ended(sent[1]))["state"] == "completed"


async def test_the_third_crash_in_a_row_sets_a_message_aside_until_a_person_retries_it(
    tmp_path: Path,
) -> None:
    async with after(None, tmp_path / "0") as engine0:
        poison = await engine0.send(text="poison")
        beside = await engine0.send(text="beside")
        await engine0.script.calls(2)
        async with after(engine0, tmp_path / "1") as engine1:
            await engine1.script.calls(2)
            async with after(engine1, tmp_path / "2") as engine2:
                await engine2.script.calls(1)
                async with after(engine2, tmp_path / "3") as engine3:
                    told = await view(engine3, poison)
                    assert (told["state"], told["error"]["code"]) == ("failed", "quarantined")
                    assert told["attempts"] == 0
                    page = await engine3.service.messages.find(ADMIN, {"code": ["quarantined"]}, None, 9)
                    assert [each["id"] for each in page["items"]] == [poison]
                    engine3.script.free.set()
                    assert (await engine3.ended(beside))["attempts"] == 1
                    engine3.script.free.clear()
                    await engine3.service.actions.retry(ADMIN, poison)
                    await engine3.script.calls(2)
                    async with after(engine3, tmp_path / "4") as engine4:
                        await engine4.script.calls(1)  # trusted again: the first crash since
                        assert not engine4.core.suspects.waiting
                        engine4.script.free.set()
                        assert (await engine4.ended(poison))["state"] == "completed"


async def test_a_suspect_that_has_not_had_its_turn_is_still_one_after_the_next_start(tmp_path: Path) -> None:
    async with after(None, tmp_path / "0") as engine0:
        sent = [await engine0.send(text=f"t{n}") for n in range(4)]
        await engine0.script.calls(4)
        async with after(engine0, tmp_path / "1") as engine1:
            await engine1.script.calls(4)
            async with after(engine1, tmp_path / "2") as engine2:
                await engine2.script.calls(1)
                async with after(engine2, tmp_path / "3") as engine3:
                    await engine3.script.calls(1)
                    await nothing_more(engine3, 1)
                    assert len(engine3.core.suspects.waiting) == 3
                    assert ids(engine3) == [sent[1]]


async def test_a_call_that_ends_clears_a_message(tmp_path: Path) -> None:
    async with after(None, tmp_path / "0") as engine0:
        id_ = await engine0.send(text="slow", backoff={"type": "fixed", "delay": 0.001})
        await engine0.script.calls(1)
        async with after(engine0, tmp_path / "1") as engine1:
            await engine1.script.calls(1)
            engine1.script.outcomes = [Temporary("busy", "later")]
            engine1.script.free.set()
            await engine1.event("message-retrying")
            engine1.script.free.clear()
            await engine1.script.calls(2)
            async with after(engine1, tmp_path / "2") as engine2:
                await engine2.script.calls(1)
                assert not engine2.core.suspects.waiting
                engine2.script.free.set()
                assert (await engine2.ended(id_))["attempts"] == 2


async def test_a_call_back_tells_that_a_message_was_set_aside_or_is_uncertain(tmp_path: Path) -> None:
    async with after(None, tmp_path / "0") as engine0:
        id_ = await engine0.send(text="x", callback_url="https://example.com/told")
        await engine0.script.calls(1)
        (tmp_path / "1").mkdir()
        for path in engine0.folder.glob("queue.db*"):
            shutil.copy(path, tmp_path / "1")
        engine1 = Engine(tmp_path / "1")  # here the channel is not safe to repeat
        told: list[tuple[str, int]] = []

        def follow_up(message: Any, made: Any) -> None:
            told.append((message.callback_url, made.state))

        engine1.core.dispatcher.follow_up = follow_up
        await engine1.service.start(None)
        assert await engine1.state(id_) == "uncertain"
        await engine1.service.close(1)
    assert told == [("https://example.com/told", 9)]


def line(number: int, code: str | None, outcome: str = "Unknown", *, open_: bool = False) -> Attempt:
    text = suspects.TEXT if code == "crash" else None
    finished = None if open_ else 1
    return Attempt(7, number, 1, "a/b", 1, 1, finished, outcome, code, text, None)


def test_crashes_in_a_row() -> None:
    crash = [line(n, "crash") for n in range(5)]
    assert crashes_in_a_row([]) == 0
    assert crashes_in_a_row(crash[:2]) == 2
    assert crashes_in_a_row([*crash[:2], line(3, None, open_=True)]) == 2
    assert crashes_in_a_row([*crash[:2], line(3, None, "Withheld")]) == 2
    assert crashes_in_a_row([*crash[:2], line(3, "busy", "Temporary"), crash[4]]) == 1
    assert crashes_in_a_row([*crash[:2], line(3, "quarantined")]) == 0
    assert crashes_in_a_row([line(1, "cut-off")]) == 0
