"""Two things at once: each change begins with what the other has left, each answer is of one moment."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.model.ids import to_text
from tests.contracts.stores.making import FLOW, NOW, message
from tests.contracts.test_engine_support import ADMIN, Engine, running

pytestmark = [pytest.mark.every_store, pytest.mark.usual]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        yield made


class SlowPut:
    """Keeps the first document from the store until it is let through."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.free = asyncio.Event(), asyncio.Event()
        usual = engine.store.put

        async def put(documents: Any) -> None:
            if not self.asked.is_set():
                self.asked.set()
                await self.free.wait()
            await usual(documents)

        monkeypatch.setattr(engine.store, "put", put)


async def test_a_pause_during_a_change_of_an_account_keeps_both(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowPut(engine, monkeypatch)
    accounts = engine.service.accounts
    change = asyncio.ensure_future(accounts.put(ADMIN, "a0", {"channel": "script", "limits": ["3/h"]}))
    await disk.asked.wait()
    pause = asyncio.ensure_future(accounts.pause(ADMIN, "a0"))
    await engine.store.notes()  # time for the pause to be stored, if it did not wait
    disk.free.set()
    await asyncio.gather(change, pause)
    view = await accounts.get(ADMIN, "a0")
    assert (view["limits"], view["state"]) == (["3/h"], "paused")
    assert [each["limit"] for each in view["usage"]] == ["3/h"]


async def test_a_change_of_a_queue_during_a_pause_keeps_both(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowPut(engine, monkeypatch)
    queues = engine.service.queues
    pause = asyncio.ensure_future(queues.pause(ADMIN, "sms"))
    await disk.asked.wait()
    change = asyncio.ensure_future(queues.put(ADMIN, "sms", {"concurrency": 7}))
    await engine.store.notes()
    disk.free.set()
    await asyncio.gather(change, pause)
    found = next(each for each in (await queues.list(ADMIN))["items"] if each["name"] == "sms")
    assert (found["concurrency"], found["paused"]) == (7, True)


async def test_a_message_that_leaves_while_it_is_asked_about_does_not_wait_for_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.account("a0", limits=["1/h"], shared=True)
    await engine.service.accounts.pause(ADMIN, "a0")
    engine.script.free.clear()
    id_ = await engine.send()
    usual = engine.store.ahead

    async def ahead(*place: Any) -> int:
        found = await usual(*place)
        await engine.service.accounts.resume(ADMIN, "a0")
        await engine.script.calls(1)
        return found

    monkeypatch.setattr(engine.store, "ahead", ahead)
    answer = await engine.service.messages.why(ADMIN, id_)
    engine.script.free.set()
    assert answer["reasons"] == []


async def test_a_message_can_be_changed_before_the_engine_heard_of_its_flow(engine: Engine) -> None:
    row, flow = message(), FLOW
    await engine.store.add([row], [flow], NOW)  # on disk, as between a commit and its answer
    assert row.flow not in engine.core.gates.keys
    view = await engine.service.actions.cancel(ADMIN, to_text(row.id))
    assert view["state"] == "cancelled"
