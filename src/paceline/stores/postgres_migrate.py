"""The schema's versions in PostgreSQL: whose schema it is, and the way up, if possible while nodes work on it.

A program is named by the newest schema that it knows. Each step says from which program on nodes may go on working after
it; the schema says the same of all its steps together. Each step is one transaction, with its version in it. Whoever
migrates holds the lock of the schema; one that joins holds it as well.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from paceline.model.errors import OccupiedError, SchemaError
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_node import end, living
from paceline.stores.postgres_session import Session, collided
from paceline.stores.statements import Migration, load_migrations

_LOOK_AGAIN_S: Final = 0.1
_TRIES: Final = 100
Steps = Sequence[Migration] | None
"""The steps that a program knows; None for those in the package."""

LOCK_MS: Final = 1_200
"""While nodes work a step waits so long for a table. Others wait behind it, so it is short; and longer than the second
after which the server ends an autovacuum that is in the way.
"""
STEP_S: Final = 1.8
"""While nodes work a step takes no longer than this: then it is undone, and nobody was held up for two seconds."""
PAUSE_S: Final = 1.0
"""Between two tries: whoever waited works on."""
TRY_S: Final = 60.0
"""So long it is tried."""

log = structlog.get_logger("paceline.store")


class Version(msgspec.Struct, frozen=True):
    """A schema's version, 0 for one that is empty or not there, and the oldest program that may work with it."""

    version: int
    oldest: int


class _InTheWayError(Exception):
    """Nodes at work did not let a step through in its time; nothing was done."""


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
    """The version that this program writes, which is also its number as a program."""
    return len(load_migrations("postgres"))


async def version_of(session: Session, address: Address, newest: int | None = None) -> int:
    """The version of the schema; 0 for one that is empty or not there. Nothing is written.

    It may be above `newest` (which is this program's, if none is named), where this program may still work with it.

    Raises:
        SchemaError: not a Paceline store, or a newer one that this program cannot work with.
    """
    return (await _look(session, address, newest_version() if newest is None else newest)).version


async def bring_up_to_date(
    session: Session, address: Address, steps: Steps = None, *, exact: bool = False
) -> int:
    """Make the schema, or bring it up to date, and hold its lock; answers the number of this program.

    `steps` are the steps that this program knows, if they are other than those in the package. `exact` refuses a newer
    schema also where this program may work with it.

    Raises:
        SchemaError: not a Paceline store, or a newer one that this program cannot work with.
        OccupiedError: nodes are at work that cannot go on after a step, or that let none through.
    """
    known = load_migrations("postgres") if steps is None else tuple(steps)
    loop = asyncio.get_running_loop()
    until = loop.time() + TRY_S
    while True:
        await lock(session, address)
        try:
            await _migrate(session, address, known, exact=exact)
        except _InTheWayError as error:
            await session.value("unlock", address.schema)  # others may join meanwhile
            if loop.time() > until:
                raise OccupiedError(
                    f"{address.name} has to be brought up to date, which took too long beside the nodes that use it "
                    f"({error}); try again when less is going on, or stop all nodes first"
                ) from None
            log.info("waiting to bring the schema up to date", store=address.name, reason=str(error))
            await asyncio.sleep(PAUSE_S)
        else:
            return len(known)


async def _look(session: Session, address: Address, newest: int) -> Version:
    found = await session.row("find_version", address.schema)
    if not found["ours"]:
        if found["others"]:
            raise SchemaError(
                f"the schema {address.schema} of {address.name} belongs to another program; name another one with "
                "?schema="
            )
        return Version(0, 0)
    version = Version(*await session.row("version"))
    if version.version > newest and version.oldest > newest:
        raise SchemaError(
            f"{address.name} was written by a newer Paceline (schema {version.version}, this one knows {newest}), and "
            "this one cannot work with it; use that version"
        )
    return version


async def _migrate(session: Session, address: Address, known: Sequence[Migration], *, exact: bool) -> None:
    version = await _look(session, address, len(known))
    if exact and version.version > len(known):
        raise SchemaError(
            f"{address.name} was written by a newer Paceline (schema {version.version}, this one knows {len(known)}); "
            "use that version for this"
        )
    if not await session.value("find_schema", address.schema):
        await session.connection.execute(await session.value("schema_script", address.schema))
    oldest = version.oldest
    for step in known[version.version :]:
        oldest = max(oldest, step.oldest)
        if not version.version:
            await _take_step(session, step, oldest)
        elif await _nodes_go_on(session, address, step):
            await _take_step_beside(session, step, oldest)
        else:
            await _take_step(session, step, oldest)
        if version.version:
            log.info("schema brought up to date", store=address.name, version=step.version, oldest=oldest)


async def _nodes_go_on(session: Session, address: Address, step: Migration) -> bool:
    """Whether nodes are at work that go on after this step. Those that have lapsed are ended: they must not wake up in it.

    Raises:
        OccupiedError: there are some that cannot go on.
    """
    for node in await living(session):
        if node.lapsed:
            await end(session, node)
    there = {node.id: node for node in await living(session)}
    programs = {id_: program for id_, program in await session.rows("programs") if id_ in there}
    old = [
        f"process {there[id_].process} on {there[id_].name}" for id_, p in programs.items() if p < step.oldest
    ]
    if old:
        raise OccupiedError(
            f"{address.name} has to be brought up to schema {step.version}, with which {', '.join(old)} of an older "
            "Paceline cannot work; stop these first"
        )
    return bool(programs)


async def _take_step_beside(session: Session, step: Migration, oldest: int) -> None:
    """Take a step beside nodes that work, or nothing of it."""
    try:
        async with asyncio.timeout(STEP_S):
            await _take_step(session, step, oldest, LOCK_MS)
    except TimeoutError:
        raise _InTheWayError(f"step {step.version} takes more than {STEP_S:g} s") from None
    except Exception as error:
        if not collided(error):
            raise
        raise _InTheWayError(str(error)) from None


async def _take_step(session: Session, step: Migration, oldest: int, lock_ms: int = 0) -> None:
    """One step and its version are one transaction."""
    connection = session.connection
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {lock_ms}")
        if step.version == 1:
            await session.run("make_version")
        await connection.execute(step.script)
        await session.run("put_version", step.version)
        if step.version > 1:  # the second one makes room for it
            await session.run("put_oldest", oldest)
