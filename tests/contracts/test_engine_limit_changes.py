"""A limit changed while calls have ended whose journal lines are still on their way to the disk (rule 5)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from paceline.model.errors import UnavailableError
from tests.contracts.test_engine_support import ADMIN, Engine, running

pytestmark = [pytest.mark.every_store, pytest.mark.usual]

Change = Callable[[Engine], Awaitable[dict[str, Any]]]


class SlowDisk:
    """Keeps endings from the disk until it is told to let them through; may refuse them once before."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, refuse: bool) -> None:
        self.free, self.asked = asyncio.Event(), asyncio.Event()
        usual = engine.store.settle
        refusals = [UnavailableError("the disk is full")] if refuse else []

        async def settle(settlements: Any, *more: Any) -> list[int]:
            if settlements:
                self.asked.set()
                await self.free.wait()
                if refusals:
                    raise refusals.pop()
            return await usual(settlements, *more)

        monkeypatch.setattr(engine.store, "settle", settle)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        await made.account("a0", shared=True, concurrency=10)
        yield made


async def of_the_account(engine: Engine) -> dict[str, Any]:
    view: dict[str, Any] = await engine.service.accounts.put(ADMIN, "a0", {"limits": ["3/h"]})
    return dict(view["usage"][0])


async def of_everything(engine: Engine) -> dict[str, Any]:
    return await engine.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "3/h"})


@pytest.mark.parametrize("refuse", [False, True], ids=["slow", "refused once"])
@pytest.mark.parametrize("change", [of_the_account, of_everything])
async def test_sends_whose_lines_are_not_on_disk_yet_count_in_the_new_limit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, change: Change, refuse: bool, store_kind: str
) -> None:
    disk = SlowDisk(engine, monkeypatch, refuse=refuse)
    first = await engine.send()
    await disk.asked.wait()  # the first has ended and is being written
    second = await engine.send()
    await engine.script.calls(2)
    while len(engine.core.attempts):
        await asyncio.sleep(0)  # the second has ended as well, and waits for its batch
    changing = asyncio.ensure_future(change(engine))
    for _ in range(5):  # whatever the change does with the store would be done by then
        await engine.store.settle((), (), (), (), 0)
        await engine.store.occupancy(0, None)
    early = changing.done()
    disk.free.set()
    assert (await changing)["used"] == 2
    # PostgreSQL counts a wide limit itself, with the calls that it knows to be under way: nothing has to be waited for.
    assert not early or (store_kind == "postgres" and change is of_everything)
    for id_ in (first, second):
        assert (await engine.ended(id_))["state"] == "completed"
    await engine.ended(await engine.send())
    assert await engine.state(await engine.send()) == "pending"
