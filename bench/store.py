"""How fast the embedded store is, beside the same row changes written in the plainest way.

`raw` is a loop on the main thread: `executemany` in batches of 500, each a transaction with a full flush. The
store does the same through its writer thread, which also keeps indexes, counts and the journal, and hands
every message back; it is measured with an idle loop and beside a loop that is busy. Run: ``python -m bench.store``.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from paceline.model.ids import IdMaker
from paceline.model.messages import FlowKey, Mark, NewMessage, Settlement
from paceline.stores.sqlite import SqliteStore

BATCH = 500
START = 1_750_000_000_000
CONTENT = json.dumps({"text": "The quick brown fox jumps over the lazy dog. " * 5})
FLOWS = [FlowKey(f"t{i}/chat/pool", f"t{i}", "", "chat", 5, "") for i in range(10)]
ACCOUNTS = [f"account-{i}" for i in range(20)]


def main() -> None:
    """Print the figures of both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files go; the temporary folder if none"
    )
    options = parser.parse_args()
    # What the server sets too: a thread that gave up the interpreter gets it back soon.
    sys.setswitchinterval(0.0001)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = make_rows(options.messages)
        plain = raw(Path(folder) / "raw.db", rows)
        print(f"raw              insert {plain[0]:9,.0f}/s   claim+finish {plain[1]:9,.0f}/s")
        for busy in (False, True):
            path = Path(folder) / f"store-{busy}.db"
            ours = asyncio.run(store(path, rows, busy=busy))
            print(
                f"store {'(busy loop)' if busy else '(idle loop)'} add {ours['add']:9,.0f}/s   hand_over+settle"
                f" {ours['both']:9,.0f}/s   (hand_over {ours['hand_over']:,.0f}/s, settle {ours['settle']:,.0f}/s,"
                f" longest call {ours['longest_ms']:.0f} ms)   of raw: {ours['both'] / plain[1]:.2f}"
            )


def make_rows(many: int) -> list[NewMessage]:
    """Messages of ten flows to as many recipients."""
    maker = IdMaker()
    numbers = [flow.number for flow in FLOWS]
    return [
        NewMessage(
            maker.next(START + i // 10), numbers[i % 10], 2, START, i, START + i // 10, None, f"t{i % 10}", "chat",
            "telegram", "", "pool", f"user{i * 7919 % 1_000_003}@example.com", 5, 3, 30_000, CONTENT, f"{i:016x}",
        )
        for i in range(many)
    ]  # fmt: skip


def batches(rows: Sequence[NewMessage]) -> Iterator[Sequence[NewMessage]]:
    """The rows 500 at a time."""
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


RAW_TABLES = """
CREATE TABLE message (id INTEGER PRIMARY KEY, flow, state, due_at, turn, account, recipient, content);
CREATE INDEX pending ON message (turn, id) WHERE state = 2;
CREATE TABLE attempt (message, number, account, started, finished, outcome, PRIMARY KEY (message, number))
  WITHOUT ROWID;
"""


def raw(path: Path, rows: Sequence[NewMessage]) -> tuple[float, float]:
    """Messages a second for insert, and for claim and finish together, of the plain way.

    A claim finds the next pending messages by their index and hands them back with their content, as any queue
    has to; it writes the message and a journal line. A finish writes both again.
    """
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")
    db.execute(RAW_TABLES)
    begun = time.perf_counter()
    for batch in batches(rows):
        values = [(r.id, r.flow, r.state, r.due_at, r.turn, "", r.recipient, r.content) for r in batch]
        with db:
            db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
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


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The raw loop is 1.0 for the figures that name it."""
    rows = make_rows(20_000 if quick else 100_000)
    plain = sorted((raw(folder / f"raw-{i}.db", rows) for i in range(3)), key=lambda pair: pair[1])[1]
    ours = await store(folder / "store.db", rows, busy=False)
    return [
        {"name": "raw insert", "value": plain[0], "unit": "messages/s"},
        {"name": "raw claim+finish", "value": plain[1], "unit": "messages/s"},
        {"name": "store add", "value": ours["add"], "unit": "messages/s", "of": "raw insert"},
        {
            "name": "store hand_over+settle",
            "value": ours["both"],
            "unit": "messages/s",
            "of": "raw claim+finish",
        },
    ]


async def store(path: Path, rows: Sequence[NewMessage], *, busy: bool) -> dict[str, float]:
    """Messages a second of each call of the store, two batches under way at any time."""
    made = SqliteStore(path)
    await made.open(START)
    stop = asyncio.Event()
    work = asyncio.create_task(_keep_busy(stop)) if busy else None
    spent = {"add": 0.0, "hand_over": 0.0, "settle": 0.0}
    longest = 0.0
    for batch in batches(rows):
        begun = time.perf_counter()
        await made.add(batch, FLOWS, START)
        longest = max(longest, time.perf_counter() - begun)
        spent["add"] += time.perf_counter() - begun
    for batch in batches(rows):
        marks = [Mark(r.id, r.flow, ACCOUNTS[i % 20], START) for i, r in enumerate(batch)]
        begun = time.perf_counter()
        given = await made.hand_over(marks, START)
        middle = time.perf_counter()
        ends = [Settlement(h.id, h.number, "accept", 5, 0, 0, 1, START, START + 20, "Accepted", reference=str(h.id))
                for h in given]  # fmt: skip
        again = time.perf_counter()
        stale = await made.settle(ends, [], [], [], START)
        done = time.perf_counter()
        assert not stale
        spent["hand_over"] += middle - begun
        spent["settle"] += done - again
        longest = max(longest, middle - begun, done - again)
    stop.set()
    if work is not None:
        await work
    await made.close()
    figures = {name: len(rows) / seconds for name, seconds in spent.items()}
    figures["both"] = len(rows) / (spent["hand_over"] + spent["settle"])
    figures["longest_ms"] = longest * 1000
    return figures


async def _keep_busy(stop: asyncio.Event) -> None:
    """Python work in steps of about a millisecond, as a loop with many calls in flight has it."""
    while not stop.is_set():
        sum(i * i for i in range(10_000))
        await asyncio.sleep(0)


if __name__ == "__main__":
    main()
