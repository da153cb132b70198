"""Enqueue inside an application's own transaction: the message exists if and only if the application's rows do.

``enqueue(connection, channel=..., to=..., ...)`` writes one row into the table `paceline_outbox` of the application's
database, on the application's own connection, and commits nothing. A server that runs with ``--outbox URL`` takes it
from there once the transaction is committed. ``paceline outbox create URL`` makes the table, `ddl` returns its
statements for migrations.
"""

import secrets
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from paceline.engine.fields import CHECKS
from paceline.model.checks import pointer
from paceline.model.errors import InvalidError, PacelineError, Problem
from paceline.stores.outbox import LARGEST, Dialect, ddl, statement

__all__ = ["ddl", "enqueue", "enqueue_async"]

_SYNC: Final = "a SQLAlchemy Session or Connection, or a connection or cursor of psycopg 3, sqlite3 or apsw"
_ASYNC: Final = "a SQLAlchemy AsyncSession or AsyncConnection, or a connection of asyncpg or psycopg 3"

Run = Callable[[Any, str, str, str | None], Any]
"""Writes (connection, key, message, schema)."""


def enqueue(connection: Any, *, schema: str | None = None, **message: Any) -> str:
    """Write one message in the transaction of `connection`; answers the row's key. Nothing is committed.

    Args:
        connection: a SQLAlchemy Session or Connection, or a connection or cursor of psycopg 3, sqlite3 or apsw.
        schema: where the table is, in PostgreSQL; without it where the connection looks first.
        message: what the HTTP interface takes: channel, to, text and so on. Moments may be `datetime` with a zone.

    Raises:
        InvalidError: the message is wrong; every problem that can be told here is named. The rest, such as an account
            that is not there, is found by the relay, which keeps the row with its error.
        PacelineError: no transaction is open, so that the row would not belong to one.
        TypeError: `connection` is none of those.
    """
    write = _writer(connection, _WRITERS)
    if write is None:
        if _writer(connection, _ASYNC_WRITERS) is not None:
            raise TypeError("this connection is asynchronous: use `await enqueue_async(...)`")
        raise TypeError(f"{type(connection).__module__}.{type(connection).__name__} is not {_SYNC}")
    key, text = secrets.token_hex(16), encode(message)
    write(connection, key, text, schema)
    return key


async def enqueue_async(connection: Any, *, schema: str | None = None, **message: Any) -> str:
    """`enqueue` for a SQLAlchemy AsyncSession or AsyncConnection, or a connection of asyncpg or psycopg 3."""
    write = _writer(connection, _ASYNC_WRITERS)
    if write is None:
        raise TypeError(f"{type(connection).__module__}.{type(connection).__name__} is not {_ASYNC}")
    key, text = secrets.token_hex(16), encode(message)
    await write(connection, key, text, schema)
    return key


def encode(message: dict[str, Any]) -> str:
    """The message as JSON text, after every check that needs no server.

    Raises:
        InvalidError: something is wrong; every problem is named.
    """
    try:
        raw = msgspec.json.encode(message)
        plain: dict[str, Any] = msgspec.json.decode(raw)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError([Problem("", f"cannot be written as JSON: {error}")]) from None
    problems = []
    if not isinstance(plain.get("channel"), str) or not plain["channel"]:
        problems.append(Problem("/channel", "is missing; for example 'smtp'"))
    for name, value in plain.items():
        check = CHECKS.get(name)
        if check is None or value is None:
            continue
        try:
            check(value)
        except ValueError as error:
            problems.append(Problem(pointer(name), str(error)))
    if len(raw) > LARGEST:
        problems.append(Problem("", f"the message is larger than {LARGEST // 1024**2} MiB"))
    if problems:
        raise InvalidError(problems)
    return raw.decode()


def _writer(connection: Any, writers: dict[tuple[str, str], Run]) -> Run | None:
    """What writes to this kind of connection, found by the names of its classes: no driver is imported here."""
    for kind in type(connection).__mro__:
        found = writers.get((kind.__module__.partition(".")[0], kind.__name__))
        if found is not None:
            return found
    return None


def _sql(dialect: Dialect, schema: str | None, key: str, message: str) -> str:
    """The statement with the parameters as a driver writes them."""
    return statement(dialect, "enqueue", schema).replace(":key", key).replace(":message", message)


def _must(in_transaction: bool) -> None:
    if not in_transaction:
        raise PacelineError(
            "no transaction is open on this connection, so the message would be committed alone; begin one, and write"
            " the message together with your own rows"
        )


def _sqlalchemy(connection: Any, key: str, message: str, schema: str | None) -> None:
    inner = connection.connection() if callable(getattr(connection, "connection", None)) else connection
    _must(getattr(inner.connection.dbapi_connection, "autocommit", False) is not True)
    inner.execute(_text(inner, schema), {"key": key, "message": message})


async def _sqlalchemy_async(connection: Any, key: str, message: str, schema: str | None) -> None:
    inner = connection if hasattr(connection, "get_raw_connection") else await connection.connection()
    driver = (await inner.get_raw_connection()).dbapi_connection
    _must(getattr(driver, "autocommit", False) is not True)
    await inner.execute(_text(inner, schema), {"key": key, "message": message})


def _text(connection: Any, schema: str | None) -> Any:
    dialect: Dialect = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
    return sys.modules["sqlalchemy"].text(_sql(dialect, schema, ":key", ":message"))


def _psycopg(connection: Any, key: str, message: str, schema: str | None) -> Any:
    """For connections and cursors, synchronous and asynchronous."""
    owner = getattr(connection, "connection", connection)
    _must(not owner.autocommit or owner.info.transaction_status != 0)
    return connection.execute(_sql("postgresql", schema, "%s", "%s"), (key, message))


async def _asyncpg(connection: Any, key: str, message: str, schema: str | None) -> None:
    _must(connection.is_in_transaction())
    await connection.execute(_sql("postgresql", schema, "$1", "$2"), key, message)


def _sqlite3(connection: Any, key: str, message: str, schema: str | None) -> None:
    owner = getattr(connection, "connection", connection)
    begins = owner.isolation_level is not None and getattr(owner, "autocommit", -1) == -1
    _must(owner.in_transaction or begins)  # what changes rows begins a transaction, unless it was told not to
    connection.execute(_sql("sqlite", schema, "?", "?"), (key, message))


def _apsw(connection: Any, key: str, message: str, schema: str | None) -> None:
    _must(getattr(connection, "connection", connection).in_transaction)
    connection.execute(_sql("sqlite", schema, "?", "?"), (key, message))


_WRITERS: Final[dict[tuple[str, str], Run]] = {
    ("sqlalchemy", "Session"): _sqlalchemy,
    ("sqlalchemy", "scoped_session"): _sqlalchemy,
    ("sqlalchemy", "Connection"): _sqlalchemy,
    ("psycopg", "Connection"): _psycopg,
    ("psycopg", "Cursor"): _psycopg,
    ("sqlite3", "Connection"): _sqlite3,
    ("sqlite3", "Cursor"): _sqlite3,
    ("apsw", "Connection"): _apsw,
    ("apsw", "Cursor"): _apsw,
}
_ASYNC_WRITERS: Final[dict[tuple[str, str], Run]] = {
    ("sqlalchemy", "AsyncSession"): _sqlalchemy_async,
    ("sqlalchemy", "async_scoped_session"): _sqlalchemy_async,
    ("sqlalchemy", "AsyncConnection"): _sqlalchemy_async,
    ("psycopg", "AsyncConnection"): _psycopg,
    ("psycopg", "AsyncCursor"): _psycopg,
    ("asyncpg", "Connection"): _asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _asyncpg,
}
