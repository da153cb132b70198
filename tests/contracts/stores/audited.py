"""Stores with every kind of life in them, made by the real engine, and what the audit says of them. Not tests."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from paceline.cli import main
from paceline.clock import ManualClock
from paceline.model.ids import from_text
from paceline.model.outcomes import (
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from paceline.stores.base import Store
from tests.contracts.test_engine_support import ADMIN, Engine, running

START = 1_800_000_000_000


async def _one(engine: Engine, *outcomes: Outcome, **body: Any) -> str:
    """A message that meets these outcomes, as soon as the last of them is on disk."""
    engine.script.outcomes[:] = outcomes
    id_ = await engine.send(**body)
    for number in range(1, len(outcomes) + 1):
        await _tried(engine, id_, number)
        if number < len(outcomes):
            engine.advance(7200)
    return id_


async def _tried(engine: Engine, id_: str, times: int) -> None:
    """The message has so many journal lines that ended."""
    number = from_text(id_)
    assert number is not None
    async with asyncio.timeout(20):
        while True:
            engine._happened.clear()
            if sum(line.finished is not None for line in await engine.store.attempts([number])) >= times:
                return
            await engine._happened.wait()


async def lives(engine: Engine) -> dict[str, str]:
    """One message of each kind of life, by a name for it."""
    service, clock = engine.service, engine.clock
    await service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "1000/s"})
    await service.limits.put(ADMIN, "tenant", {"scope": {"tenant": "default"}, "limit": "50/min"})
    await engine.account("slow", limits=["3/10s", "100/h"], quota={"day": 500}, concurrency=2, pool="own")
    await engine.account("other", limits=["5/s"], interval="1s", channel="other")
    ids = {"accepted": await engine.send()}
    await engine.ended(ids["accepted"])
    engine.advance(1)
    ids["retried"] = await _one(engine, Temporary("x", "later"), Temporary("x", "later"))
    engine.advance(7200)
    await engine.ended(ids["retried"])
    ids["refused"] = await _one(engine, Permanent("no", "never"))
    ids["worn out"] = await _one(engine, *[Temporary("x", "later")] * 3)
    ids["moved"] = await _one(engine, Moved("elsewhere", "moved", "gone"))
    await engine.ended(ids["moved"])
    ids["confirmed"] = await _one(engine, Unknown("cut"))
    await service.actions.settle(ADMIN, ids["confirmed"], "completed")
    ids["denied"] = await _one(engine, Unknown("cut"))
    await service.actions.settle(ADMIN, ids["denied"], "failed")
    ids["uncertain"] = await _one(engine, Unknown("cut"))
    ids["sent again"] = await _one(engine, Unknown("cut"))
    await service.actions.settle(ADMIN, ids["sent again"], "pending")
    await engine.ended(ids["sent again"])
    ids["revived"] = await _one(engine, Permanent("no", "never"))
    await service.actions.retry(ADMIN, ids["revived"])
    await engine.ended(ids["revived"])
    ids["cancelled"] = await engine.send(scheduled_at=engine.later())
    await service.actions.cancel(ADMIN, ids["cancelled"])
    ids["expired"] = await engine.send(scheduled_at=engine.later(), expires_at=engine.later(7200))
    await service.actions.patch(ADMIN, ids["expired"], {"scheduled_at": engine.later(7000)})
    await service.accounts.pause(ADMIN, "slow")
    ids["too late"] = await engine.send(account="slow", expires_at=engine.later(60))
    engine.advance(61)
    await engine.ended(ids["too late"])
    await service.accounts.resume(ADMIN, "slow")
    engine.advance(8000)
    ids["scheduled"] = await engine.send(scheduled_at=engine.later())
    ids["deleted"] = await _one(engine, Permanent("no", "never"))
    await service.actions.delete(ADMIN, ids["deleted"])
    ids["flooded"] = await _one(engine, RateLimited(5_000))
    engine.advance(6)
    await engine.ended(ids["flooded"])
    ids["stopped"] = await _one(engine, AccountStopped("banned", "go away"))
    await service.accounts.resume(ADMIN, "a0")
    await engine.ended(ids["stopped"])
    assert clock.now() > START
    return ids


async def _paced(engine: Engine) -> list[str]:
    """Twelve messages of one flow under 3 in 10 s."""
    ids = [await engine.send(account="slow", to=f"r{number}") for number in range(12)]
    for number, id_ in enumerate(ids):
        if number and number % 3 == 0:
            engine.advance(10)
        await engine.ended(id_)
    return ids


def made(
    folder: Path, also: Callable[[Engine], Awaitable[None]] | None = None, store: Store | None = None
) -> dict[str, Any]:
    """A store with every kind of life in it, by a real engine on a clock that is moved by hand."""

    async def make() -> dict[str, Any]:
        async with running(folder, ManualClock(START), store) as engine:
            names: dict[str, Any] = dict(await lives(engine))
            names["paced"] = await _paced(engine)
            if also is not None:
                await also(engine)
        return names

    return asyncio.run(make())


class Audited:
    """A copy of the store, and what the command line says of it."""

    def __init__(self, file: Path, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.names, self._capsys = file, names, capsys

    def id(self, name: str, place: int | None = None) -> int:
        named = self.names[name] if place is None else self.names[name][place]
        number = from_text(named)
        assert number is not None
        return number

    def change(self, statement: str, *values: Any) -> None:
        connection = apsw.Connection(str(self.file))
        connection.execute(statement, values)
        assert connection.changes() >= 1
        connection.close()

    def audit(self, *more: str) -> tuple[int, Any]:
        code = main.run(["audit", str(self.file), "--json", *more])
        return code, json.loads(self._capsys.readouterr().out)

    def found(self, *more: str) -> dict[str, list[Any]]:
        """What each check that found something found."""
        code, view = self.audit(*more)
        broken = {check["name"]: check["findings"] for check in view["checks"] if check["broken"]}
        assert code == (1 if broken else 0)
        assert view["verdict"] == ("broken" if broken else "clean")
        return broken
