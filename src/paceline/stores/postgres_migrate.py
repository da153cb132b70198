"""The schema's versions in PostgreSQL: whose schema it is, and the way up. Each step is one transaction.

Whoever migrates holds the lock of the schema (see `postgres_owner`), so nobody else is at work.
"""

from paceline.model.errors import SchemaError
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import Session
from paceline.stores.statements import load_migrations


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
    """
    version = await version_of(session, address)
    connection = session.connection
    if not await session.value("find_schema", address.schema):
        await connection.execute(await session.value("schema_script", address.schema))
    for step in load_migrations("postgres")[version:]:
        async with connection.transaction():
            if step.version == 1:
                await session.run("make_version")
            await connection.execute(step.script)
            await session.run("put_version", step.version)
