"""Several engines on one PostgreSQL schema. Not tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from paceline.model.nodes import PARTITIONS
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.postgres_server import url_for
from tests.contracts.test_engine_support import PATIENCE, Engine, running

LEASE_S = 1.0


class Group:
    """Engines on one schema, each in a folder of its own."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.engines: list[Engine] = []

    async def add(self, role: str = "all") -> Engine:
        folder = self.folder / f"n{len(self.engines)}"
        folder.mkdir()
        store = PostgresStore(url_for(self.folder), role, LEASE_S)
        engine = await self._stack.enter_async_context(running(folder, store=store))
        self.engines.append(engine)
        return engine

    async def add_to(self, schema: Path, role: str) -> Engine:
        """One on the schema of another folder."""
        folder = self.folder / "api"
        folder.mkdir()
        store = PostgresStore(url_for(schema), role, LEASE_S)
        return await self._stack.enter_async_context(running(folder, store=store))

    async def shared(self) -> None:
        """As soon as every sending engine has its even share and decides about it."""
        await until(lambda: sum(len(e.core.owned) for e in self.engines) == PARTITIONS and self._even())

    def _even(self) -> bool:
        sizes = [len(e.core.owned) for e in self.engines]
        return max(sizes) - min(sizes) <= 1


@asynccontextmanager
async def group(folder: Path) -> AsyncIterator[Group]:
    async with AsyncExitStack() as stack:
        yield Group(folder, stack)


async def until(holds: Callable[[], Any], within: float = PATIENCE) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


def silence(engine: Engine) -> None:
    """Its lease is not renewed any more."""
    nodes = engine.store.nodes
    assert isinstance(engine.store, PostgresStore)
    assert nodes is not None
    assert engine.store.nodes._lease is not None
    engine.store.nodes._lease.stop()


async def accounts(engine: Engine, many: int, **more: Any) -> list[str]:
    """Accounts in pools of their own, which are spread over the partitions."""
    names = [f"acc{number}" for number in range(many)]
    for name in names:
        await engine.account(name, pool=f"pool-{name}", **more)
    return names
