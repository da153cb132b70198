"""The plainest way to write what a message writes: what SQLite itself can do, for the others to be measured by.

`same_rows` makes the very row changes of the product, in its own tables with their indexes: insert the message
and its entry; mark the entry as handed over and read the message; end the entry and write the journal line. It
knows the ids, searches nothing, counts nothing, checks nothing and waits for nobody. `bare` does the same with
tables and indexes of its own that are as small as such tables can be. Both in batches of 500, each a
transaction with a full flush.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import msgspec

import paceline.stores
from bench.engine import text_of
from paceline.model.ids import IdMaker
from paceline.model.messages import FlowKey, NewMessage

BATCH = 500
CACHE_KIB = 64 * 1024
START = 1_750_000_000_000
MIGRATIONS = Path(paceline.stores.__file__).parent / "sql" / "sqlite" / "migrations"

BARE_TABLES = """
CREATE TABLE message (id INTEGER PRIMARY KEY, flow, state, due_at, turn, account, recipient, content);
CREATE INDEX pending ON message (turn, id) WHERE state = 2;
CREATE TABLE attempt (message, number, account, started, finished, outcome, PRIMARY KEY (message, number))
  WITHOUT ROWID;
"""

INSERT_MESSAGE = """
INSERT INTO message (id, created_at, tenant, queue, channel, account, pool, recipient, priority, max_attempts,
  timeout_ms, content, trace_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT_ENTRY = """
INSERT INTO entry (id, flow, state, number, attempts, due_at, turn, sender) VALUES (?, ?, 2, 0, 0, ?, ?, '')
"""
CLAIM = "UPDATE entry SET state = 3, number = 1, sender = ?, started_at = ? WHERE id = ?"
READ = """
SELECT id, account, tenant, queue, channel, recipient, content, max_attempts, timeout_ms, trace_id, created_at
FROM message WHERE id IN (SELECT value FROM json_each(?))
"""
FINISH = "UPDATE entry SET state = 5, attempts = 1, finished_at = ? WHERE id = ?"
JOURNAL = """
INSERT INTO attempt (message, number, flow, account, recipient, handed_over, started, finished, outcome, reference)
VALUES (?, 1, ?, ?, ?, ?, ?, ?, 'Accepted', 'noop')
"""


def messages(count: int, accounts: int) -> list[NewMessage]:
    """The messages of the drain, to accounts in turn."""
    maker, made = IdMaker(), []
    for index in range(count):
        body = text_of(index, accounts)
        account = f"default/{body['account']}"
        key = FlowKey("default/noop/default", "default", "", "notification", 5, account)
        id_ = maker.next(START + index // 10)
        content = msgspec.json.encode({"text": body["text"]}).decode()
        made.append(
            NewMessage(
                id_, key.number, 2, START, START + index // 10, START + index // 10, None, "default", "notification",
                "noop", account, "default", body["to"], 5, 3, 30_000, content, f"{id_:032x}",
            )
        )  # fmt: skip
    return made


def batches(rows: Sequence[NewMessage]) -> Iterator[Sequence[NewMessage]]:
    """The rows 500 at a time."""
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def same_rows(path: Path, rows: Sequence[NewMessage]) -> tuple[float, float]:
    """Messages a second for insert, and for claim and finish together, in the product's tables."""
    db = _open(path, "".join(part.read_text() for part in sorted(MIGRATIONS.glob("*.sql"))))
    begun = time.perf_counter()
    for batch in batches(rows):
        with db:
            db.executemany(INSERT_MESSAGE, [
                (r.id, r.created_at, r.tenant, r.queue, r.channel, r.account, r.pool, r.recipient, r.priority,
                 r.max_attempts, r.timeout_ms, r.content, r.trace_id) for r in batch])  # fmt: skip
            db.executemany(INSERT_ENTRY, [(r.id, r.flow, r.due_at, r.turn) for r in batch])
    inserted = time.perf_counter()
    now = START
    for batch in batches(rows):
        now += 20
        with db:
            db.executemany(CLAIM, [(r.account, now, r.id) for r in batch])
            db.execute(READ, (msgspec.json.encode([r.id for r in batch]).decode(),)).fetchall()
        with db:
            db.executemany(FINISH, [(now + 10, r.id) for r in batch])
            db.executemany(
                JOURNAL, [(r.id, r.flow, r.account, r.recipient, now, now, now + 10) for r in batch]
            )
    done = time.perf_counter()
    db.close()
    return len(rows) / (inserted - begun), len(rows) / (done - inserted)


def bare(path: Path, rows: Sequence[NewMessage]) -> tuple[float, float]:
    """The same with tables of its own; its claim finds the next messages by their index."""
    db = _open(path, BARE_TABLES)
    begun = time.perf_counter()
    for batch in batches(rows):
        with db:
            db.executemany(
                "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(r.id, r.flow, r.state, r.due_at, r.turn, "", r.recipient, r.content) for r in batch],
            )
    inserted = time.perf_counter()
    for _ in batches(rows):
        with db:
            claimed = db.execute(
                "UPDATE message SET state = 3, account = 'a' WHERE id IN"
                f" (SELECT id FROM message WHERE state = 2 ORDER BY turn, id LIMIT {BATCH})"
                " RETURNING id, recipient, content"
            ).fetchall()
            values = [(row[0], START) for row in claimed]
            db.executemany("INSERT INTO attempt VALUES (?, 1, 'a', ?, NULL, NULL)", values)
        with db:
            db.executemany("UPDATE message SET state = 5 WHERE id = ?", [(row[0],) for row in claimed])
            db.executemany("UPDATE attempt SET finished = ?, outcome = 'Accepted' WHERE message = ? AND number = 1",
                           [(START, row[0]) for row in claimed])  # fmt: skip
    done = time.perf_counter()
    db.close()
    return len(rows) / (inserted - begun), len(rows) / (done - inserted)


def _open(path: Path, tables: str) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")
    # As generous as the product is to itself: room for the tables in memory, and rare checkpoints.
    db.pragma("cache_size", -CACHE_KIB)
    db.pragma("wal_autocheckpoint", 10_000)
    db.execute(tables)
    return db
