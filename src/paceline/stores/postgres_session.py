"""Connections to PostgreSQL: how they are set up, what has to be right about the server, what its errors mean."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from paceline.clock import passed_ms
from paceline.model.errors import ConflictError, InvalidError, Problem, SchemaError, UnavailableError
from paceline.model.wide import Need
from paceline.stores.postgres_address import Address
from paceline.stores.statements import Statement, load_statements

if TYPE_CHECKING:
    from paceline.stores.postgres_places import Book

OLDEST: Final = 140_000
"""PostgreSQL 14: older ones get no corrections any more."""
CONNECT_S: Final = 10.0
COMMAND_S: Final = 60.0
"""A statement of the writer that takes longer counts as lost, with its connection."""

COMMON: Final = {
    # Compiling a plan takes longer than any of these statements.
    "jit": "off",
    # So that the server notices within half a minute that nobody is at the other end, and frees what it holds.
    "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4",
}  # fmt: skip
_ONE_PLAN: Final = {
    # Each statement of lanes and writer has one good plan: from the few given rows by index to what they name. The
    # tables go from empty to full and back in minutes, so statistics of them are nearly always old, and a plan made
    # from those reads a whole table for one row.
    "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
    "enable_material": "off",
    "plan_cache_mode": "force_generic_plan",
}  # fmt: skip
WRITING: Final = _ONE_PLAN | {"idle_in_transaction_session_timeout": str(round(COMMAND_S * 1000))}
QUICK: Final = _ONE_PLAN | {"default_transaction_read_only": "on"}
SEARCHING: Final = {"default_transaction_read_only": "on"}

_AWAY: Final = ("08", "25", "28", "3D", "40", "53", "54", "55", "57", "58", "F0", "XX")
"""Classes of errors that say nothing against what was asked for: the same may be asked again later."""
_NO_TEXT: Final = "contains a NUL character or half a character, which the database cannot store as text"


class Session:
    """One connection with the named statements; it is used by one task at a time."""

    def __init__(self, connection: Any) -> None:
        """Use `connection`, an `asyncpg.Connection`."""
        self.connection = connection
        # Of the node that writes through it: its slot, what it owns, and for whom the present commit leaves word.
        self.slot = 0
        self.number = 0  # by which its places of wide limits are known
        self.book: Book | None = None
        # Grows with each commit that refuses hand-overs, over all connections; and which was the last of each limit and key.
        self.refused = int(passed_ms())
        self.refusals: dict[Need, int] = {}
        self.owned: frozenset[int] = frozenset()
        self.woken = 0
        self._statements: dict[str, Statement] = load_statements("postgres")

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return bool(self.connection.is_closed())

    async def value(self, name: str, *values: Any) -> Any:
        """The first value that a named statement answers, None without a row."""
        return await self.connection.fetchval(self._statements[name].sql, *values)

    async def rows(self, name: str, *values: Any) -> list[Sequence[Any]]:
        """The rows that a named statement answers."""
        found: list[Sequence[Any]] = await self.connection.fetch(self._statements[name].sql, *values)
        return found

    async def row(self, name: str, *values: Any) -> Any:
        """The first row, with its columns by name; None without one."""
        return await self.connection.fetchrow(self._statements[name].sql, *values)

    async def run(self, name: str, *values: Any) -> None:
        """Run a named statement that answers nothing."""
        await self.connection.execute(self._statements[name].sql, *values)

    def sql(self, name: str) -> str:
        """The text of a named statement."""
        return self._statements[name].sql

    async def close(self) -> None:
        """Say goodbye, or hang up where that takes too long."""
        with suppress(Exception):  # whatever it says: the connection is not needed any more
            await self.connection.close(timeout=2)
        self.connection.terminate()


async def connect(
    address: Address, application: str, settings: Mapping[str, str], seconds: float = COMMAND_S
) -> Session:
    """A new connection in the schema of the address.

    Raises:
        UnavailableError: the server cannot be reached, or does not let us in.
    """
    given = {**COMMON, **settings, "search_path": address.schema, "application_name": application}
    try:
        connection = await asyncpg.connect(
            address.dsn, timeout=CONNECT_S, command_timeout=seconds, server_settings=given,
            max_cached_statement_lifetime=0,
        )  # fmt: skip
    except (
        OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError,
        asyncpg.TargetServerAttributeNotMatched,
    ) as error:  # fmt: skip
        if isinstance(error, asyncpg.PostgresError) and "startup parameter" in str(error):
            raise _pooled(address) from error
        raise UnavailableError(f"{address.name} cannot be reached ({_words(error)})") from error
    return Session(connection)


async def check_server(session: Session, address: Address) -> str:
    """Refuse a server on which 'yes' would not mean 'on disk', and make that so where the connection can.

    Answers the server's version.

    Raises:
        SchemaError: something about it is wrong for good.
        UnavailableError: it takes no writes now.
    """
    facts = await session.row("server_facts")
    if facts["version"] < OLDEST:
        raise SchemaError(f"{address.name} runs PostgreSQL {facts['shown']}; 14 or newer is needed")
    if facts["encoding"] != "UTF8":
        raise SchemaError(f"{address.name} stores text as {facts['encoding']}; use a database with UTF8")
    if facts["backend"] != session.connection.get_server_pid():
        raise _pooled(address)
    if facts["fsync"] != "on":
        raise SchemaError(
            f"{address.name} runs with fsync = {facts['fsync']}: what it acknowledges is lost when the power fails; "
            "switch fsync on"
        )
    if facts["standby"]:
        raise UnavailableError(f"{address.name} is a standby and takes no writes; name the primary")
    if facts["synchronous_commit"] in {"off", "local"}:
        await session.connection.execute("SET synchronous_commit = on")
    return str(facts["shown"])


def translate(error: Exception, name: str) -> Exception:
    """What a database error means to a caller of the store `name`; any other error stays what it is."""
    if isinstance(error, (OSError, TimeoutError, asyncpg.InternalClientError)):
        return UnavailableError(f"the connection to {name} was lost ({_words(error)})")
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return ConflictError(f"this is already stored or breaks a rule of the schema ({_words(error)})")
    if isinstance(error, asyncpg.DiskFullError):
        return UnavailableError(
            "the database's disk is full: nothing was stored; free some space and it goes on by itself"
        )
    if isinstance(error, (asyncpg.CharacterNotInRepertoireError, UnicodeEncodeError)):
        return InvalidError([Problem("", _NO_TEXT)])
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return UnavailableError(f"the connection to {name} was lost ({_words(error)})")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_AWAY):
        return UnavailableError(f"{name} cannot be used now ({_words(error)})")
    return error


def collided(error: BaseException) -> bool:
    """Whether another node's transaction was in the way: nothing was done, and the same may be tried at once."""
    return isinstance(
        error, (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)
    )


def columns(rows: Sequence[Any], width: int) -> list[list[Any]]:
    """The first `width` fields of some structs, each as the array that a statement takes."""
    if not rows:
        return [[] for _ in range(width)]
    return [list(column) for column in list(zip(*map(msgspec.structs.astuple, rows), strict=True))[:width]]


def _pooled(address: Address) -> SchemaError:
    return SchemaError(
        f"{address.name} is behind a pooler that shares its connections (such as PgBouncer); the ownership of the "
        "store hangs on a connection of its own: name the server itself"
    )


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
