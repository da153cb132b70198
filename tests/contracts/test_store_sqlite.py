"""What only the embedded store has: a file, its owner, its schema, and a disk that may be full."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import apsw
import msgspec
import pytest

from paceline.model.errors import ConflictError, OccupiedError, SchemaError, UnavailableError
from paceline.model.messages import AccountNote
from paceline.stores import sqlite_reader
from paceline.stores.base import Document, Filter, FlowAfter
from paceline.stores.calls import TooSlowError
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_reader import Readers
from paceline.stores.sqlite_schema import Session
from paceline.stores.statements import load_migrations, load_statements
from tests.contracts.stores.making import FLOW, NOW, mark, message, one, sent, settlement

ROOT = Path(__file__).parents[2]


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open(NOW)
    return store


def start_child(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script that may use what the tests use; its lines are the protocol."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], text=True, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


# Whose file it is


async def test_a_second_store_in_this_process_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    with pytest.raises(OccupiedError, match=f"process {os.getpid()}; stop"):
        await opened(tmp_path / "a.db")
    await store.add([message()], [FLOW], NOW)
    await store.close()
    await (await opened(tmp_path / "a.db")).close()


async def test_another_process_is_refused_until_the_owner_dies(tmp_path: Path) -> None:
    child = start_child(
        """
        import asyncio, sys
        from paceline.stores.sqlite import SqliteStore
        async def main():
            await SqliteStore(sys.argv[1]).open(0)
            print("open", flush=True)
            sys.stdin.read()
        asyncio.run(main())
        """,
        str(tmp_path / "a.db"),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(OccupiedError, match=f"process {child.pid};"):
            await opened(tmp_path / "a.db")
        child.send_signal(signal.SIGKILL)
    await (await opened(tmp_path / "a.db")).close()


@pytest.mark.parametrize(
    "content", [b"hello, this is a text file and no database at all", b"SQLite format 3\0" + b"\1" * 500]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match="not a SQLite database"):
        await opened(path)
    assert path.read_bytes() == content


async def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with apsw.Connection(str(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="another program"):
        await opened(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await (await opened(path)).close()
    db = apsw.Connection(str(path))
    db.pragma("user_version", 999)
    db.close()
    with pytest.raises(SchemaError, match=r"newer Paceline \(schema 999"):
        await opened(path)


async def test_an_empty_file_becomes_a_store_and_opening_it_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.db"
    path.parent.mkdir()
    path.touch()
    await (await opened(path)).close()
    db = apsw.Connection(str(path))
    assert db.pragma("application_id") == 0x50434C4E
    assert db.pragma("user_version") == len(load_migrations("sqlite"))
    assert db.pragma("journal_mode") == "wal"
    schema = db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    db.close()
    await (await opened(path)).close()
    db = apsw.Connection(str(path))
    assert db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == schema
    db.close()


async def test_a_folder_that_cannot_hold_the_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with pytest.raises(UnavailableError, match="cannot be used now"):
        await opened(tmp_path / "a.db")


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    with pytest.raises(UnavailableError, match="not open"):
        await store.add([message()], [FLOW], NOW)
    await store.open(NOW)
    row = message()
    under_way = asyncio.ensure_future(store.add([row], [FLOW], NOW))
    await asyncio.sleep(0)
    await store.close()
    assert [a.id for a in await under_way] == [row.id]
    with pytest.raises(UnavailableError, match="not open"):
        await store.get([row.id])
    await store.close()


# Rule 1: acknowledged means on disk


async def test_everything_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    for attempt in range(4):
        child = start_child(
            """
            import asyncio, sys
            from tests.contracts.stores import making as m
            from paceline.stores.sqlite import SqliteStore
            async def main():
                store = SqliteStore(sys.argv[1])
                await store.open(0)
                first = int(sys.argv[2])
                for n in range(10_000):
                    rows = [m.message(id=first + n * 7 + i) for i in range(7)]
                    added = await store.add(rows, [m.FLOW], 0)
                    given = await store.hand_over([m.mark(r) for r in rows[:3]], 0)
                    print("added", *[a.id for a in added], flush=True)
                    print("given", *[g.id for g in given], flush=True)
            asyncio.run(main())
            """,
            str(tmp_path / "a.db"), str((attempt + 1) * 1_000_000),
        )  # fmt: skip
        with child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(20 + attempt * 13)]
            child.send_signal(signal.SIGKILL)
            lines += [line for line in child.stdout if line.endswith("\n")]
        added = {int(n) for line in lines if line.startswith("added") for n in line.split()[1:]}
        given = {int(n) for line in lines if line.startswith("given") for n in line.split()[1:]}
        store = await opened(tmp_path / "a.db")
        assert {m.id for m in await store.get(sorted(added))} == added
        assert {g.id for g in await store.processing()} >= given
        assert len(added) > 50
        counts = await store.count(Filter())
        assert counts == await store.count(Filter(created_from=0))
        # All or nothing: seven messages a call, three of them handed over by one call.
        assert sum(counts.values()) % 7 == counts[3] % 3 == 0
        await store.close()


def test_a_full_disk_refuses_writes_and_heals_by_itself(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource
    child = start_child(
        """
        import asyncio, json, resource, sys
        from tests.contracts.stores import making as m
        from paceline.model.errors import UnavailableError
        from paceline.stores.base import Filter
        from paceline.stores.sqlite import SqliteStore
        async def main():
            store = SqliteStore(sys.argv[1])
            await store.open(0)
            (waiting,) = rows = [m.message()]
            await store.add(rows, [m.FLOW], 0)
            good, refused = 1, []
            resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
            while len(refused) < 5:
                try:
                    good += len(await store.add([m.message(content="x" * 50_000)], [m.FLOW], 0))
                except UnavailableError as error:
                    refused.append(str(error))
            readable = sum((await store.count(Filter(created_from=0))).values())
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for _ in range(5):
                good += len(await store.add([m.message(content="x" * 50_000)], [m.FLOW], 0))
            given = await store.hand_over([m.mark(waiting)], 0)
            await store.settle([m.settlement(g) for g in given], [], [], [], 0)
            stored = sum((await store.count(Filter(created_from=0))).values())
            await store.close()
            print(json.dumps([good, stored, readable, refused[0]]))
        asyncio.run(main())
        """,
        str(tmp_path / "a.db"),
    )
    output, _ = child.communicate(timeout=60)
    good, stored, readable, reason = json.loads(output)
    assert good == stored
    assert readable == good - 5
    assert "full" in reason or "cannot be used now" in reason


async def test_a_full_database_still_ends_hand_overs_that_fit(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    row = message()
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    connection = store._writer._session.connection
    connection.pragma("max_page_count", connection.pragma("page_count") + 3)
    big = store.add([message(content="x" * 100_000)], [FLOW], NOW)
    added, settled = await asyncio.gather(
        big, store.settle([settlement(given)], [], [], [], NOW), return_exceptions=True
    )
    assert isinstance(added, UnavailableError)
    assert "disk is full" in str(added)
    assert settled == []
    with pytest.raises(UnavailableError):
        await store.add([message(content="x" * 100_000)], [FLOW], NOW)
    connection.pragma("max_page_count", 1_000_000)
    assert len(await store.add([message(content="x" * 100_000)], [FLOW], NOW)) == 1
    assert (await one(store, row.id)).state == 5
    await store.close()


async def test_a_file_that_was_deleted_acknowledges_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    with pytest.raises(UnavailableError, match="moved or deleted"):
        await store.add([message()], [FLOW], NOW)
    (tmp_path / "b.db").rename(tmp_path / "a.db")
    assert len(await store.add([message()], [FLOW], NOW)) == 1
    await store.close()


async def test_another_program_that_holds_the_file_is_named(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    store._writer._session.connection.set_busy_timeout(1)
    other = apsw.Connection(str(tmp_path / "a.db"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="another program"):
        await store.add([message()], [FLOW], NOW)
    other.execute("ROLLBACK")
    assert len(await store.add([message()], [FLOW], NOW)) == 1
    other.close()
    await store.close()


# The shared commit


async def test_one_bad_call_fails_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    first = message()
    await store.add([first], [FLOW], NOW)
    (given,) = await store.hand_over([mark(first)], NOW)
    rows = [message() for _ in range(4)]
    bad = message(recipient=None)
    unprintable = message(content="\ud800")
    answers = await asyncio.gather(
        store.add(rows[:2], [FLOW], NOW), store.add([rows[2], bad], [FLOW], NOW), store.add([first], [FLOW], NOW),
        store.add([unprintable], [FLOW], NOW), store.add(rows[3:], [FLOW], NOW),
        store.settle([settlement(given)], [AccountNote("a", 5)], [], [], NOW),
        return_exceptions=True,
    )  # fmt: skip
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, True, True, False, False]
    assert isinstance(answers[1], ConflictError)
    assert isinstance(answers[3], UnicodeEncodeError)
    stored = [m.id for m in await store.find(Filter(created_from=0), None, 99)]
    assert stored == [rows[3].id, rows[1].id, rows[0].id, first.id]
    assert (await one(store, first.id)).state == 5
    assert await store.count(Filter()) == {2: 3, 5: 1}
    await store.close()


async def test_a_caller_that_gives_up_does_not_stop_the_others(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    rows = [message() for _ in range(3)]
    calls = [asyncio.ensure_future(store.add([row], [FLOW], NOW)) for row in rows]
    await asyncio.sleep(0)
    calls[1].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert len(await store.get([row.id for row in rows])) == 3
    await store.close()


async def test_the_thread_gets_all_calls_of_a_step_together(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    before = (await store.health())["commits"]
    calls = [asyncio.ensure_future(store.add([message()], [FLOW], NOW)) for _ in range(3)]
    # The thread has seen nothing yet, however long this step of the loop goes on.
    assert (store._writer.waiting, store._writer._pending) == (3, [])
    await asyncio.gather(*calls)
    assert (await store.health())["commits"] == before + 1
    await store.close()


async def test_many_kinds_and_rounds_fit_one_commit(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    before = (await store.health())["commits"]
    documents = [Document("k", "t", str(n), "{}", NOW) for n in range(60)]
    await asyncio.gather(
        *(store.put([document]) for document in documents), store.promote(NOW, 1), store.expire(NOW, 1)
    )
    assert (await store.health())["commits"] == before + 1
    assert len(await store.documents("k")) == 60
    await store.close()


async def test_a_commit_is_bounded_but_takes_at_least_one_call(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    before = (await store.health())["commits"]
    calls = [[message() for _ in range(2000)] for _ in range(5)]
    calls.append([message() for _ in range(6000)])
    await asyncio.gather(*(store.add(rows, [FLOW], NOW) for rows in calls))
    assert (await store.health())["commits"] == before + 4
    assert await store.count(Filter(created_from=0)) == {2: 16_000}
    await store.close()


async def test_the_log_stays_small(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    for _ in range(60):
        await store.add([message(content="x" * 1000) for _ in range(1000)], [FLOW], NOW)
    facts = await store.health()
    assert facts["file_bytes"] > 40e6
    assert facts["wal_bytes"] < 64e6
    await store.close()
    assert not (tmp_path / "a.db-wal").exists()


# Reading


async def test_a_search_that_takes_too_long_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path / "a.db")
    await store.add([message() for _ in range(1000)], [FLOW], NOW)
    monkeypatch.setattr(sqlite_reader, "_STEPS_BETWEEN_LOOKS", 10)
    slow = Readers(tmp_path / "a.db", 1, "slow", 0.0)
    with pytest.raises(TooSlowError, match="narrow it"):
        await slow.read(lambda session: session.value("tallies"))
    slow.close()
    await store.close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")

    def write(session: Session) -> None:
        session.connection.execute("DELETE FROM message")

    readers = Readers(tmp_path / "a.db", 1, "reader", None)
    with pytest.raises(UnavailableError, match="readonly"):
        await readers.read(write)
    readers.close()
    await store.close()


async def test_the_next_entries_cost_the_same_however_long_the_line(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    rows = [message(turn=1) for _ in range(20_000)]
    await store.add(rows, [FLOW], NOW)
    steps = []
    readers = Readers(tmp_path / "a.db", 1, "count", None)

    def counted(session: Session, after: int) -> int:
        looks = [0]

        def look() -> bool:
            looks[0] += 1
            return False

        session.connection.set_progress_handler(look, 100)
        text = msgspec.json.encode([FlowAfter(FLOW.number, 1, after, 10)]).decode()
        session.value("entries", text, 11)
        session.connection.set_progress_handler(None)
        return looks[0]

    for place in (0, 10_000, 19_000):
        after = rows[place].id
        steps.append(await readers.read(lambda session, after=after: counted(session, after)))  # type: ignore[misc]
    readers.close()
    await store.close()
    assert max(steps) < 30


async def plan_of(path: Path, sql: str, *values: object) -> list[str]:
    """The steps of a statement and of its triggers, on the writer's own connection."""
    store = await opened(path)
    connection = store._writer._session.connection
    connection.config(apsw.SQLITE_DBCONFIG_TRIGGER_EQP, 1)
    steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    await store.close()
    return steps


def walks_in(steps: list[str]) -> list[str]:
    """Steps that visit all rows of a table that grows with the messages."""
    big = ("entry", "attempt", "message", "line", "idempotency", "tally", "daily")
    return [
        step for step in steps if step.startswith("SCAN") and step.split()[1] in big and "USING" not in step
    ]


@pytest.mark.parametrize(
    "name", ["processing", "entries", "ahead", "occupancy_of", "get", "attempts", "known_keys"]
)
async def test_no_quick_read_walks_a_whole_table(tmp_path: Path, name: str) -> None:
    sql = load_statements("sqlite")[name].sql
    many = max((int(number) for number in re.findall(r"\?([0-9])", sql)), default=0)
    steps = await plan_of(tmp_path / "a.db", sql, *("[]", 1, 1)[:many])
    assert steps
    assert walks_in(steps) == []


async def test_no_write_walks_a_whole_table(tmp_path: Path) -> None:
    steps = await plan_of(tmp_path / "a.db", "INSERT INTO work (kind) VALUES ('add')")
    # That the plan of the triggers is there at all: every kind of write uses these.
    assert any("claim" in step for step in steps)
    assert any("entry_due" in step for step in steps)
    assert walks_in(steps) == []


async def test_the_file_holds_together_after_all_kinds_of_work(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    rows = [message(idempotency_key=f"k{n}", group="g", batch=n % 3, recipient=f"r{n}") for n in range(300)]
    await store.add(rows, [FLOW], NOW)
    for row in rows[:50]:
        await sent(store, row)
    await store.clean(Filter(), None, 10, 99)
    await store.close()
    db = apsw.Connection(str(tmp_path / "a.db"))
    assert db.execute("PRAGMA integrity_check").get == "ok"
    assert db.execute("SELECT count(*) FROM idempotency").get == 260
    db.close()
