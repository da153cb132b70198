"""The schema's versions in PostgreSQL: whose schema it is, and the way up. Each step is one transaction.

Whoever migrates holds the lock of the schema, and no node is at work; one that joins holds it as well.
"""

import asyncio
from typing import Final

from paceline.model.errors import OccupiedError, SchemaError
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_node import living
from paceline.stores.postgres_session import Session
from paceline.stores.statements import load_migrations

_LOOK_AGAIN_S: Final = 0.1
_TRIES: Final = 100


async def lock(session: Session, address: Address) -> None:
    """Be the only one that brings the schema up to date or joins, until `unlock` or the end of the connection.

    Raises:
        OccupiedError: another process takes long for it.
    """
    for _ in range(_TRIES):
        if await session.value("lock", address.schema):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
    raise OccupiedError(f"another process is bringing {address.name} up to date; try again when it is done")


def newest_version() -> int:
    """The version that this program writes."""
    return len(load_migrations("postgres"))


async def version_of(session: Session, address: Address) -> int:
    """The version of the schema; 0 for one that is empty or not there. Nothing is written.

    Raises:
        SchemaError: not a Paceline store, or one of a newer version.
    """
    found = await session.row("find_version", address.schema)
    if not found["ours"]:
        if found["others"]:
            raise SchemaError(
                f"the schema {address.schema} of {address.name} belongs to another program; name another one with "
                "?schema="
            )
        return 0
    version: int = await session.value("version")
    if version > newest_version():
        raise SchemaError(
            f"{address.name} was written by a newer Paceline (schema {version}, this one knows {newest_version()}); "
            "use that version"
        )
    return version


async def migrate(session: Session, address: Address) -> None:
    """Make the schema, or bring it up to date.

    Raises:
        SchemaError: not a Paceline store, or one of a newer version.
        OccupiedError: nodes of an older version are at work.
    """
    version = await version_of(session, address)
    connection = session.connection
    if 0 < version < newest_version():
        await _must_be_idle(session, address)
    if not await session.value("find_schema", address.schema):
        await connection.execute(await session.value("schema_script", address.schema))
    for step in load_migrations("postgres")[version:]:
        async with connection.transaction():
            if step.version == 1:
                await session.run("make_version")
            await connection.execute(step.script)
            await session.run("put_version", step.version)


async def _must_be_idle(session: Session, address: Address) -> None:
    """Steps of the schema are for nobody to stumble over."""
    busy = [f"process {node.process} on {node.name}" for node in await living(session) if not node.lapsed]
    if busy:
        raise OccupiedError(
            f"{address.name} has to be brought up to date, and is in use by {', '.join(busy)}; stop all nodes first"
        )
