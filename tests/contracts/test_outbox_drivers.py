"""`enqueue` on every kind of connection: the row is the transaction's, and of no other."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from paceline.model.errors import PacelineError
from paceline.outbox import enqueue, enqueue_async
from tests.contracts.stores.outboxes import App

MESSAGE = {"channel": "smtp", "to": "ada@example.com", "text": "hi"}
Open = Callable[[App], Any]


def _driver(app: App) -> str:
    return f"sqlite:///{app.file}" if app.kind == "sqlite" else app.database.replace("://", "+psycopg://")


@contextmanager
def _alchemy(app: App, kind: Callable[[sqlalchemy.Engine], Any], **more: Any) -> Iterator[Any]:
    arguments = {} if app.kind == "sqlite" else {"options": f"-csearch_path={app.schema}"}
    engine = sqlalchemy.create_engine(_driver(app), connect_args=arguments, **more)
    try:
        with closing(kind(engine)) as connection:
            yield connection
    finally:
        engine.dispose()


def _session(app: App) -> Any:
    return _alchemy(app, Session)


def _scoped(app: App) -> Any:
    return _alchemy(app, lambda engine: scoped_session(sessionmaker(engine)))


def _connection(app: App) -> Any:
    return _alchemy(app, lambda engine: engine.connect())


@contextmanager
def _psycopg(app: App, **more: Any) -> Iterator[Any]:
    with psycopg.connect(app.database, options=f"-csearch_path={app.schema}", **more) as connection:
        yield connection


@contextmanager
def _cursor(app: App) -> Iterator[Any]:
    with _psycopg(app) as connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def _sqlite3(app: App, **more: Any) -> Iterator[Any]:
    with closing(sqlite3.connect(app.file, **more)) as connection:
        yield connection


@contextmanager
def _sqlite3_cursor(app: App) -> Iterator[Any]:
    with _sqlite3(app) as connection:
        yield connection.cursor()


@contextmanager
def _apsw(app: App) -> Iterator[Any]:
    with closing(apsw.Connection(str(app.file))) as connection:
        connection.execute("BEGIN")
        yield connection


SYNC = [
    pytest.param(kind, make, id=f"{make.__name__.strip('_')}-{kind}")
    for kind, makes in (
        ("sqlite", (_session, _scoped, _connection, _sqlite3, _sqlite3_cursor, _apsw)),
        ("postgresql", (_session, _scoped, _connection, _psycopg, _cursor)),
    )
    for make in makes
]


def _end(connection: Any, *, commit: bool) -> None:
    owner = connection.connection if isinstance(connection, sqlite3.Cursor | psycopg.Cursor) else connection
    if isinstance(owner, apsw.Connection):
        owner.execute("COMMIT" if commit else "ROLLBACK")
    elif commit:
        owner.commit()
    else:
        owner.rollback()


async def found(app: App) -> list[tuple[str, Any]]:
    rows = await app.ask("SELECT key, message FROM paceline_outbox ORDER BY position")
    return [(key, json.loads(text)) for key, text in rows]


@pytest.mark.parametrize(("kind", "make"), SYNC)
async def test_the_row_is_there_if_and_only_if_the_transaction_is(
    kind: str, make: Open, tmp_path: Path
) -> None:
    app = App(kind, tmp_path)
    await app.begin()

    def work() -> str:
        with make(app) as connection:
            enqueue(connection, **MESSAGE)
            _end(connection, commit=False)
        with make(app) as connection:
            key = enqueue(connection, **MESSAGE)
            _end(connection, commit=True)
        return key

    key = await asyncio.to_thread(work)
    assert await found(app) == [(key, MESSAGE)]


@asynccontextmanager
async def _asyncpg(app: App) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(app.database, server_settings={"search_path": app.schema})
    try:
        yield connection, connection.transaction()
    finally:
        await connection.close()


@asynccontextmanager
async def _asyncpg_pool(app: App) -> AsyncIterator[Any]:
    settings = {"search_path": app.schema}
    async with (
        asyncpg.create_pool(app.database, min_size=1, max_size=1, server_settings=settings) as pool,
        pool.acquire() as connection,
    ):
        yield connection, connection.transaction()


@asynccontextmanager
async def _psycopg_async(app: App) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(
        app.database, options=f"-csearch_path={app.schema}"
    ) as connection:
        yield connection, connection


@asynccontextmanager
async def _async_session(app: App, **more: Any) -> AsyncIterator[Any]:
    engine = create_async_engine(
        app.database.replace("://", "+asyncpg://"),
        connect_args={"server_settings": {"search_path": app.schema}},
        **more,
    )
    async with AsyncSession(engine) as session:
        yield session, session
    await engine.dispose()


@asynccontextmanager
async def _async_connection(app: App) -> AsyncIterator[Any]:
    engine = create_async_engine(
        app.database.replace("://", "+asyncpg://"),
        connect_args={"server_settings": {"search_path": app.schema}},
    )
    async with engine.connect() as connection:
        yield connection, connection
    await engine.dispose()


@pytest.mark.parametrize("make", [_asyncpg, _asyncpg_pool, _psycopg_async, _async_session, _async_connection])
async def test_the_row_of_an_asynchronous_connection_is_its_transactions(make: Open, tmp_path: Path) -> None:
    app = App("postgresql", tmp_path)
    await app.begin()
    keys = []
    for commit in (False, True):
        async with make(app) as (connection, transaction):
            if hasattr(transaction, "start") and "asyncpg" in type(transaction).__module__:
                await transaction.start()
            keys.append(await enqueue_async(connection, **MESSAGE))
            await (transaction.commit() if commit else transaction.rollback())
    assert await found(app) == [(keys[1], MESSAGE)]


async def test_the_table_may_be_in_a_schema_that_is_named(tmp_path: Path) -> None:
    app = App("postgresql", tmp_path)
    await app.begin()
    with psycopg.connect(app.database) as connection:
        key = enqueue(connection, schema=app.schema, **MESSAGE)
    assert await found(app) == [(key, MESSAGE)]


async def _refused(act: Callable[[], Any]) -> None:
    async def whole() -> None:
        answer = act()
        if isinstance(answer, Awaitable):
            await answer

    with pytest.raises(PacelineError, match="no transaction is open"):
        await whole()


async def test_without_a_transaction_it_is_refused(tmp_path: Path) -> None:
    """There the row would be committed alone, whatever becomes of the application's own."""
    app, file = App("postgresql", tmp_path), App("sqlite", tmp_path)
    await app.begin()
    await file.begin()
    with _psycopg(app, autocommit=True) as connection:
        await _refused(lambda: enqueue(connection, **MESSAGE))
        with connection.transaction():
            enqueue(connection, **MESSAGE)
    async with _asyncpg(app) as (connection, _):
        await _refused(lambda: enqueue_async(connection, **MESSAGE))
    with _alchemy(app, lambda engine: engine.connect(), isolation_level="AUTOCOMMIT") as connection:
        await _refused(lambda: enqueue(connection, **MESSAGE))
    with _alchemy(app, Session, execution_options={"isolation_level": "AUTOCOMMIT"}) as session:
        await _refused(lambda: enqueue(session, **MESSAGE))
    async with _async_session(app, isolation_level="AUTOCOMMIT") as (session, _):
        await _refused(lambda: enqueue_async(session, **MESSAGE))
    with _sqlite3(file, isolation_level=None) as connection:
        await _refused(lambda: enqueue(connection, **MESSAGE))
    with _apsw(file) as connection:
        connection.execute("COMMIT")
        await _refused(lambda: enqueue(connection, **MESSAGE))
    assert len(await found(app)) == 1 and await found(file) == []


async def test_what_is_no_connection_is_refused_by_name(tmp_path: Path) -> None:
    app = App("postgresql", tmp_path)
    await app.begin()
    with pytest.raises(TypeError, match=r"builtins\.int is not a SQLAlchemy Session"):
        enqueue(7, **MESSAGE)
    with pytest.raises(TypeError, match=r"builtins\.int is not a SQLAlchemy AsyncSession"):
        await enqueue_async(7, **MESSAGE)
    async with _asyncpg(app) as (connection, _):
        with pytest.raises(TypeError, match="await enqueue_async"):
            enqueue(connection, **MESSAGE)
