"""Two nodes on one PostgreSQL schema, and how one of them ends. Not tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from paceline.model.nodes import Node
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import NOW
from tests.contracts.stores.postgres_server import url_for

LEASE_S = 0.6


@asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[list[PostgresStore]]:
    """Two nodes; the first owns everything."""
    made = [PostgresStore(url_for(folder), lease_s=LEASE_S) for _ in range(2)]
    for store in made:
        await store.open(NOW)
    yield made
    for store in made:
        await store.close()


def silence(store: PostgresStore) -> None:
    """Its lease is not renewed any more."""
    assert store.nodes._lease is not None
    store.nodes._lease.stop()


async def seen(by: PostgresStore, node: PostgresStore | str) -> Node | None:
    wanted = node if isinstance(node, str) else node.nodes.id
    return next((each for each in (await by.nodes.standing()).nodes if each.id == wanted), None)


async def ended(by: PostgresStore, store: PostgresStore) -> None:
    """Silence a node and let another one end it, as soon as it may."""
    silence(store)
    async with asyncio.timeout(10):
        while (node := await seen(by, store)) is not None:
            await by.nodes.end(node)
            await asyncio.sleep(0.02)
