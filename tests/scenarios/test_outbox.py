"""An application with an outbox beside a real server that is killed at the worst moments."""

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paceline.outbox import ddl, enqueue
from tests.contracts.stores.postgres_server import base, execute
from tests.scenarios.server import Server, Witness, pause_of, text_body, until


class Application:
    """Rows of its own, each with a message, in its own transactions."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.file = kind, folder / "app.db"
        self.schema = ""
        if kind == "sqlite":
            self.url = f"sqlite:///{self.file}"
            with closing(sqlite3.connect(self.file)) as connection:
                connection.executescript(
                    "PRAGMA journal_mode = wal; CREATE TABLE own (text);" + ddl("sqlite")
                )
        else:
            self.database, schema = base(folder)
            self.schema = schema + "_app"
            self.url = f"{self.database}?schema={self.schema}"
            asyncio.run(execute(self.database, f"CREATE SCHEMA {self.schema}",
                                f"CREATE TABLE {self.schema}.own (text text)",
                                ddl("postgresql", schema=self.schema)))  # fmt: skip

    @contextmanager
    def connected(self) -> Iterator[Any]:
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.file, timeout=20)) as connection:
                yield connection
        else:
            with psycopg.connect(self.database, options=f"-csearch_path={self.schema}") as connection:
                yield connection

    def write(self, connection: Any, text: str) -> None:
        mark = "?" if self.kind == "sqlite" else "%s"
        connection.execute(f"INSERT INTO own VALUES ({mark})", (text,))
        enqueue(connection, **text_body("bot", text))

    def lock(self, connection: Any) -> None:
        """Keep the relay from deleting, as a long transaction of the application does."""
        rows = "BEGIN IMMEDIATE" if self.kind == "sqlite" else "SELECT 1 FROM paceline_outbox FOR UPDATE"
        connection.execute(rows)

    def ask(self, statement: str) -> list[Any]:
        with self.connected() as connection:
            return [row[0] for row in connection.execute(statement).fetchall()]

    def left(self) -> int:
        return int(self.ask("SELECT count(*) FROM paceline_outbox")[0])


@pytest.fixture(params=["sqlite", "postgresql"])
def application(request: pytest.FixtureRequest, tmp_path: Path) -> Application:
    return Application(request.param, tmp_path)


def test_a_server_killed_between_adding_and_deleting_sends_each_message_once(
    application: Application, tmp_path: Path
) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start("--outbox", application.url)
        server.account("bot", witness, 1)
        server.api("POST", "/hold", {})
        with application.connected() as connection, application.connected() as other:
            for number in range(50):
                application.write(connection, f"m{number}")
            connection.commit()
            application.lock(other)
            until(lambda: server.count("pending") == 50, "all are taken in")
            assert application.left() == 50
            server.kill()
            other.rollback()
        server.start_moved("--outbox", application.url)
        until(lambda: application.left() == 0, "the outbox is empty")
        witness.wait(taken=50)
        until(lambda: server.count("completed") == 50, "all are told as sent")
        assert sorted(a.text for a in witness.arrivals()) == sorted(f"m{number}" for number in range(50))
        assert len(server.all_messages()) == 50


@pytest.mark.slow
def test_kills_while_an_application_commits_lose_nothing_and_add_nothing_twice(
    application: Application, tmp_path: Path
) -> None:
    chance = random.Random(4711)
    over = threading.Event()
    undone: list[str] = []

    def work() -> None:
        fate = random.Random(17)
        number = 0
        with application.connected() as connection:
            while not over.is_set():
                texts = [f"m{number + each}" for each in range(fate.randrange(1, 20))]
                number += len(texts)
                for text in texts:
                    application.write(connection, text)
                if fate.random() < 0.3:
                    connection.rollback()
                    undone.extend(texts)
                else:
                    connection.commit()
                time.sleep(0.005)

    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start("--outbox", application.url)
        server.account("bot", witness, 1, concurrency=5)
        writer = threading.Thread(target=work)
        writer.start()
        try:
            for _ in range(5):
                pause_of(chance, 0.3, 1.5)
                server.kill()
                server.start("--outbox", application.url)
        finally:
            over.set()
            writer.join()
        until(lambda: application.left() == 0, "the outbox is empty")
        own = application.ask("SELECT text FROM own")
        stored = [message["text"] for message in server.all_messages()]
        assert len(own) > 200 and undone
        assert sorted(stored) == sorted(own)
        assert {a.text for a in witness.arrivals()} <= set(own)
