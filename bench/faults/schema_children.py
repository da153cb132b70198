"""The processes of E28: one that kills itself at the n-th step of a migration or a purge, and one that counts on.

    python -m bench.faults.schema_children FOLDER WHAT EVERY [BREAK]

forks a child for each `EVERY`-th step, until one ends before its step comes, looks at what each has left, and
prints the findings as one JSON object.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from bench.faults.breaks_ops import BREAKS
from paceline.engine.installation import mark_copy
from paceline.model.messages import FlowKey, NewMessage, Settlement
from paceline.model.messages import Mark as HandOver
from paceline.model.states import State
from paceline.stores import sqlite_migrate
from paceline.stores.base import Document, Filter
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_files import SqliteFiles
from paceline.stores.statements import Migration, load_migrations

NOW = 1_750_000_000_000
FLOW = FlowKey("acme/chat/main", "acme", "", "chat", 5, "")
STEPS = 400
"""Instructions of SQLite's machine that count as one step, besides each statement and each trigger."""
OLD = len(load_migrations("sqlite"))
MORE = (
    Migration(OLD + 1, "note", """
        ALTER TABLE message ADD COLUMN note TEXT;
        UPDATE message SET note = 'n' || id;
        CREATE INDEX message_note ON message (note) WHERE note IS NOT NULL;
     """, "DROP INDEX message_note; ALTER TABLE message DROP COLUMN note;"),
    Migration(OLD + 2, "rebuilt", """
        CREATE TABLE daily_new (day INTEGER NOT NULL, tenant TEXT NOT NULL, queue TEXT NOT NULL, channel TEXT NOT NULL,
          account TEXT NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL, retries INTEGER NOT NULL,
          send_ms INTEGER NOT NULL, rebuilt INTEGER NOT NULL DEFAULT 0,
          PRIMARY KEY (day, tenant, queue, channel, account)) STRICT, WITHOUT ROWID;
        INSERT INTO daily_new SELECT *, 1 FROM daily;
        DROP TABLE daily;
        ALTER TABLE daily_new RENAME TO daily;
        CREATE TABLE extra (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
        INSERT INTO extra SELECT id, 'x' FROM message;
     """, "DROP TABLE extra; ALTER TABLE daily DROP COLUMN rebuilt;"),
)  # fmt: skip
"""Steps as they may come: a column that is filled, an index, a table made anew."""
NEW = OLD + len(MORE)
Names = set[str]


class Failpoint:
    """Counts what SQLite does on every connection and kills the process at the n-th of it."""

    def __init__(self, at: int) -> None:
        self.at, self.seen, self.armed = at, 0, False
        apsw.connection_hooks.append(self.watch)

    def watch(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self._statement)
        connection.set_progress_handler(self._went_on, STEPS, id="failpoint")

    def _statement(self, _: Any) -> None:
        self._step()

    def _went_on(self) -> bool:
        self._step()
        return False

    def _step(self) -> None:
        if self.armed:
            self.seen += 1
            if self.seen == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


async def fill(path: Path, rows: int) -> None:
    """A store with as many messages as that in every state that there is, and journal lines of old."""
    store = SqliteStore(path, mark_copy)
    await store.open(NOW)
    made = [_message(number) for number in range(rows)]
    await store.add(made, [FLOW], NOW)
    handed = await store.hand_over(
        [HandOver(m.id, m.flow, "acme/bot", NOW) for m in made[: rows // 2] if m.state == State.PENDING], NOW
    )
    ends = [State.COMPLETED, State.FAILED, State.UNCERTAIN, State.RETRYING, State.COMPLETED, State.EXPIRED]
    events = {State.COMPLETED: "accept", State.FAILED: "refuse", State.UNCERTAIN: "lose", State.RETRYING: "retry",
              State.EXPIRED: "expire"}  # fmt: skip
    ended = [
        Settlement(id=m.id, number=m.number, event=events[ends[n % 6]], state=ends[n % 6], due_at=m.due_at,
                   turn=m.turn, attempts=1, started=NOW, finished=NOW + 10, outcome="Accepted")
        for n, m in enumerate(handed[: len(handed) * 9 // 10])
    ]  # fmt: skip
    await store.settle(ended, [], [], [], NOW + 20)
    await store.put([Document("queue", "", "chat", "{}", NOW)])
    await store.close()


def _message(number: int) -> NewMessage:
    state = State.SCHEDULED if number % 7 == 0 else State.PENDING
    return NewMessage(
        id=(number + 1) << 22, flow=FLOW.number, state=state, due_at=NOW, turn=0, created_at=NOW, expires_at=None,
        tenant=FLOW.tenant, queue=FLOW.queue, channel="chat", account="", pool="main", recipient=f"r{number}",
        priority=5, max_attempts=3, timeout_ms=30_000, content='{"text":"hi"}', trace_id="abc",
    )  # fmt: skip


async def purge(path: Path, failpoint: Failpoint) -> None:
    store = SqliteStore(path, mark_copy)
    await store.open(NOW)
    failpoint.armed = True
    while await store.clean(Filter(), NOW + 60_000, None, 7):
        continue
    while await store.clean_journal(NOW + 60_000, 7):
        continue
    failpoint.armed = False
    await store.close()


async def up(path: Path, failpoint: Failpoint) -> None:
    store = SqliteStore(path, mark_copy)
    failpoint.armed = True
    await store.open(NOW)
    failpoint.armed = False
    await store.close()


async def down(path: Path, failpoint: Failpoint) -> None:
    files = SqliteFiles(path, mark_copy)
    failpoint.armed = True
    files.migrate(OLD, NOW)
    failpoint.armed = False


WHAT = {"up": up, "down": down, "purge": purge}


class Run:
    """All the kills of one kind."""

    def __init__(self, folder: Path, what: str, break_: str) -> None:
        self.folder, self.what, self.break_ = folder, what, break_
        self.found: Counter[str] = Counter()
        self.known = self._schemas()
        self.whole = _live(folder / "old.db")

    def all(self, every: int) -> dict[str, int]:
        at = 1
        while self._kill(at):
            self.found["kills"] += 1
            self._look()
            at += every
        self._look(finished=True)
        return dict(self.found)

    def _schemas(self) -> dict[int, Names]:
        """The schema of each version there may be afterwards."""
        known = {OLD: _schema(self.folder / "old.db")}
        for version in range(OLD + 1, NEW + 1):
            shutil.copyfile(self.folder / "old.db", self.folder / "to.db")
            connection = apsw.Connection(str(self.folder / "to.db"))
            sqlite_migrate.migrate(connection, version)
            connection.close()
            known[version] = _schema(self.folder / "to.db")
        shutil.copyfile(self.folder / "to.db", self.folder / "new.db")
        return known

    def _kill(self, at: int) -> bool:
        """Whether the child was killed; it is a fork, so that it starts in a moment."""
        self._fresh()
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
                self.found["failed"] += 1
            return os.WIFSIGNALED(status)
        code = 1
        try:
            failpoint = Failpoint(at)
            if self.break_:
                BREAKS[self.break_]()
            asyncio.run(WHAT[self.what](self.path, failpoint))
            code = 0
        finally:
            os._exit(code)

    @property
    def path(self) -> Path:
        return self.folder / "now" / "a.db"

    def _fresh(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.parent.mkdir()
        shutil.copyfile(self.folder / ("new.db" if self.what == "down" else "old.db"), self.path)

    def _look(self, *, finished: bool = False) -> None:
        """What is left: whole, at a version that there is, with all that has not ended, and openable."""
        try:
            version, schema = _version(self.path), _schema(self.path)
            self.found["between versions"] += self.known.get(version) != schema
            live = _live(self.path)
            self.found["lost or changed"] += live != self.whole
            for copy in self.path.parent.glob("backups/*.db"):
                self.found["copies"] += 1
                self.found["bad copies"] += _live(copy) != self.whole
            if self.what != "purge":
                asyncio.run(_open_and_close(self.path))
                self.found["not at the newest version"] += _version(self.path) != NEW
            elif finished:
                self.found["left"] = len(live)
                self.found["not purged"] = _ended(self.path)
        except Exception as error:
            self.found["failed opens"] += 1
            print(self.found["kills"], type(error).__name__, error, file=sys.stderr)


async def _open_and_close(path: Path) -> None:
    store = SqliteStore(path, mark_copy)
    await store.open(NOW + 1)
    await store.close()


def _look_into(path: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        assert connection.execute("PRAGMA integrity_check").get == "ok", "damaged"
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _version(path: Path) -> int:
    return int(_look_into(path, "PRAGMA user_version")[0][0])


def _schema(path: Path) -> Names:
    rows = _look_into(
        path, "SELECT s.name, c.name FROM sqlite_schema s LEFT JOIN pragma_table_info(s.name) c"
    )
    return {f"{table}.{column}" for table, column in rows}


def _live(path: Path) -> list[Any]:
    """All that has not ended, with its state, and what counts say of it."""
    live = "(1, 2, 3, 4, 9)"
    rows = _look_into(
        path,
        f"SELECT id, state FROM entry JOIN message USING (id) WHERE state IN {live} ORDER BY id",
    )
    counts = _look_into(
        path, f"SELECT state, sum(count) FROM counted WHERE state IN {live} GROUP BY state ORDER BY state"
    )
    assert Counter(state for _, state in rows) == dict(counts), "counts and messages differ"
    return rows


def _ended(path: Path) -> int:
    return int(_look_into(path, "SELECT count(*) FROM entry WHERE state IN (5, 6, 7, 8)")[0][0])


def main() -> None:
    folder, what, every, break_ = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), "".join(sys.argv[4:])
    warnings.simplefilter("ignore", DeprecationWarning)
    known = (*load_migrations("sqlite"), *MORE)
    sqlite_migrate.load_migrations = lambda _dialect: known
    print(json.dumps(Run(folder, what, break_).all(every)))


if __name__ == "__main__":
    main()
