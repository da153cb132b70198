"""Applications with an outbox in their own database, one of each kind, and relays of it. Not tests."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import asyncpg

from paceline.engine.relay import Relay
from paceline.model.messages import NewMessage
from paceline.stores.outbox import OutboxDesk, OutboxPlace, OutboxSource, ddl, parse_outbox
from paceline.stores.outbox_postgres import PostgresOutbox, PostgresOutboxDesk
from paceline.stores.outbox_sqlite import SqliteOutbox, SqliteOutboxDesk
from tests.contracts.stores import postgres_server
from tests.contracts.test_engine_support import PATIENCE, Engine

KINDS = ("sqlite", "postgresql")


class App:
    """An application: a table `own` and an outbox, in a database of its own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        if kind == "sqlite":
            self.file = folder / "app.db"
            self.url = f"sqlite:///{self.file}"
        else:
            self.database, schema = postgres_server.base(folder)
            self.schema = schema + "_app"
            self.url = f"{self.database}?schema={self.schema}"

    async def begin(self) -> None:
        """Make the tables, as an application's own migration would."""
        if self.kind == "sqlite":
            with closing(self._file()) as connection:
                connection.execute("PRAGMA journal_mode = wal; CREATE TABLE own (n)").fetchall()
                connection.execute(ddl("sqlite"))
        else:
            await postgres_server.execute(
                self.database, f"CREATE SCHEMA {self.schema}", f"CREATE TABLE {self.schema}.own (n bigint)",
                ddl("postgresql", schema=self.schema),
            )  # fmt: skip

    async def write(self, texts: Sequence[str], *, commit: bool = True) -> None:
        """One transaction with as many own rows as rows of the outbox."""
        if self.kind == "sqlite":
            with closing(self._file()) as connection:
                connection.execute("BEGIN")
                connection.executemany("INSERT INTO own VALUES (?)", [(n,) for n in range(len(texts))])
                connection.executemany(
                    "INSERT INTO paceline_outbox (message) VALUES (?)", [(t,) for t in texts]
                )
                connection.execute("COMMIT" if commit else "ROLLBACK")
            return
        connection = await asyncpg.connect(self.database, server_settings={"search_path": self.schema})
        transaction = connection.transaction()
        await transaction.start()
        await connection.executemany("INSERT INTO own VALUES ($1)", [(n,) for n in range(len(texts))])
        await connection.executemany(
            "INSERT INTO paceline_outbox (message) VALUES ($1)", [(t,) for t in texts]
        )
        await (transaction.commit() if commit else transaction.rollback())
        await connection.close()

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows that a statement answers; what it changes is committed."""
        if self.kind == "sqlite":
            with closing(self._file()) as connection:
                return connection.execute(statement).fetchall()
        connection = await asyncpg.connect(self.database, server_settings={"search_path": self.schema})
        rows = await connection.fetch(statement)
        await connection.close()
        return [tuple(row) for row in rows]

    def _file(self) -> apsw.Connection:
        """By the same SQLite that the relay of these tests has: two in one process undo each other's locks."""
        connection = apsw.Connection(str(self.file))
        connection.set_busy_timeout(10_000)
        return connection

    async def left(self) -> int:
        """Rows in the outbox."""
        ((count,),) = await self.ask("SELECT count(*) FROM paceline_outbox")
        return int(count)

    def place(self, tenant: str = "default") -> OutboxPlace:
        return parse_outbox(self.url + ("&" if "?" in self.url else "?") + f"tenant={tenant}")

    def desk(self) -> OutboxDesk:
        return SqliteOutboxDesk(self.place()) if self.kind == "sqlite" else PostgresOutboxDesk(self.place())

    def relay(
        self, engine: Engine, wrap: Callable[[OutboxSource], OutboxSource] = lambda source: source,
        tenant: str = "default",
    ) -> Relay:  # fmt: skip
        """A relay that has begun; closing the engine stops it."""
        place = self.place(tenant)
        source = SqliteOutbox(place) if self.kind == "sqlite" else PostgresOutbox(place)
        relay = Relay(place, wrap(source), self.desk(), engine.service.messages, engine.core)
        engine.service.relays.all.append(relay)
        relay.start()
        return relay

    async def empty(self) -> None:
        """Return once nothing waits in the outbox."""
        await until(lambda: self._waits(0))

    async def _waits(self, count: int) -> bool:
        return (await self.desk().facts()).waiting == count


def body(text: str, **more: Any) -> str:
    """A message as an application writes it."""
    return json.dumps({"channel": "script", "to": "somebody", "text": text, **more})


def texts_of(rows: Sequence[NewMessage]) -> list[str]:
    return [json.loads(row.content)["text"] for row in rows]


async def until(holds: Callable[[], Any], within: float = PATIENCE) -> None:
    """Ask again and again until the answer is true: what happens in another database tells nobody."""
    async with asyncio.timeout(within):
        while not await holds():
            await asyncio.sleep(0.02)
