"""Copies of the embedded store: taken in use, checked, put back; and its schema, up and down."""

import asyncio
import os
import threading
from pathlib import Path

import apsw
import pytest

from paceline.engine.installation import mark_copy, read
from paceline.model.errors import ConflictError, InvalidError, OccupiedError, SchemaError, UnavailableError
from paceline.stores import sqlite_copy, sqlite_files, sqlite_migrate
from paceline.stores.base import Document
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_copy import CopyStoppedError, copy_database, facts_of
from paceline.stores.sqlite_files import SqliteFiles
from paceline.stores.statements import Migration, load_migrations, read_migrations
from tests.contracts.stores.making import EVERYTHING, FLOW, NOW, mark, message

FIRST = len(load_migrations("sqlite"))
NOTE = Migration(
    FIRST + 1, "note", "ALTER TABLE message ADD COLUMN note TEXT; UPDATE message SET note = 'n';",
    "ALTER TABLE message DROP COLUMN note",
)  # fmt: skip
TABLE = Migration(FIRST + 2, "table", "CREATE TABLE extra (id INTEGER) STRICT", "DROP TABLE extra")
BAD = Migration(
    FIRST + 1, "bad", "CREATE TABLE extra (id INTEGER) STRICT; INSERT INTO nowhere VALUES (1)", "SELECT 1"
)


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path, mark_copy)
    await store.open(NOW)
    return store


async def filled(path: Path, rows: int = 5) -> SqliteStore:
    store = await opened(path)
    made = [message() for _ in range(rows)]
    await store.add(made, [FLOW], NOW)
    await store.hand_over([mark(made[0])], NOW)
    return store


def files(path: Path) -> SqliteFiles:
    return SqliteFiles(path, mark_copy)


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def pragma(path: Path, name: str) -> object:
    connection = apsw.Connection(str(path))
    try:
        return connection.pragma(name)
    finally:
        connection.close()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows two steps more."""
    known = (*load_migrations("sqlite"), NOTE, TABLE)
    monkeypatch.setattr(sqlite_migrate, "load_migrations", lambda _dialect: known)


# Copies


async def test_a_copy_of_a_store_in_use_is_whole_private_and_marked(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    target = tmp_path / "copy.db"
    facts = await store.copy(target, NOW)
    await store.add([message()], [FLOW], NOW)
    assert (facts.version, facts.messages, facts.waiting, facts.under_way) == (FIRST, 5, 4, 1)
    assert target.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) >= {"copy.db"} and "copy.db.part" not in names(tmp_path)
    assert pragma(target, "journal_mode") == "delete"  # one file, no log beside it
    await store.close()
    again = await opened(target)
    assert len(await again.find(EVERYTHING, None, 100)) == 5
    hold = read(await again.documents("installation")).hold
    assert hold is not None and hold.copied_at == NOW
    await again.close()


async def test_a_copy_holds_one_moment_however_much_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(tmp_path / "a.db", 300)
    loop, rounds, flush = asyncio.get_running_loop(), 0, sqlite_copy.flush

    async def write() -> None:
        await store.add([message(), message()], [FLOW], NOW)

    def write_and_flush(path: Path) -> None:
        nonlocal rounds
        if path.suffix == ".part" and rounds < 30:
            rounds += 1
            asyncio.run_coroutine_threadsafe(write(), loop).result(20)
        flush(path)

    monkeypatch.setattr(sqlite_copy, "PAGES", 1)
    monkeypatch.setattr(sqlite_copy, "_STEPS_BETWEEN_FLUSHES", 1)
    monkeypatch.setattr(sqlite_copy, "flush", write_and_flush)
    assert (await store.copy(tmp_path / "b.db", NOW)).messages == 300
    assert rounds == 30
    assert len(await store.find(EVERYTHING, None, 1000)) == 360
    await store.close()


async def test_a_copy_never_overwrites_and_an_unfinished_one_is_no_copy(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    target = tmp_path / "b.db"
    target.write_text("mine")
    with pytest.raises(ConflictError, match="exists already"):
        await store.copy(target, NOW)
    assert target.read_text() == "mine"
    target.unlink()
    (tmp_path / "b.db.part").write_text("what a crash left")
    assert (await store.copy(target, NOW)).messages == 5
    with pytest.raises(UnavailableError, match="cannot be written"):
        await store.copy(tmp_path / "no" / "b.db", NOW)
    await store.close()


async def test_a_copy_under_way_is_given_up_when_the_store_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    pages = sqlite_copy._copy_pages

    def slow(source: Path, part: Path, stop: threading.Event) -> None:
        begun.set()
        go_on.wait(20)
        pages(source, part, stop)

    monkeypatch.setattr(sqlite_copy, "_copy_pages", slow)
    store = await filled(tmp_path / "a.db")
    copying = asyncio.ensure_future(store.copy(tmp_path / "b.db", NOW))
    await asyncio.to_thread(begun.wait, 20)
    with pytest.raises(ConflictError, match="being made already"):
        await store.copy(tmp_path / "c.db", NOW)
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    with pytest.raises(CopyStoppedError):
        await copying
    assert names(tmp_path).isdisjoint({"b.db", "b.db.part"})


async def test_a_copy_of_a_damaged_database_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db", 500)
    await store.close()
    spoil(tmp_path / "a.db")
    with pytest.raises(UnavailableError, match="damaged"):
        copy_database(tmp_path / "a.db", tmp_path / "b.db", mark_copy, NOW)
    with pytest.raises(UnavailableError, match="damaged"):
        facts_of(tmp_path / "a.db")
    assert names(tmp_path).isdisjoint({"b.db", "b.db.part"})


async def test_a_copy_that_opens_and_contradicts_itself_is_found_out(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    await store.close()
    data = (tmp_path / "a.db").read_bytes()
    place = data.rindex(b"ann@example.com")  # one of the table's and the index's, which then differ
    (tmp_path / "a.db").write_bytes(data[:place] + b"bnn" + data[place + 3 :])
    with pytest.raises(UnavailableError, match="damaged"):
        copy_database(tmp_path / "a.db", tmp_path / "b.db", mark_copy, NOW)
    with pytest.raises(UnavailableError, match="damaged"):
        files(tmp_path / "new" / "b.db").restore(tmp_path / "a.db", NOW, replace=False)


def spoil(path: Path) -> None:
    """Write nonsense over every page from the third on, as a bad disk does."""
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(64))


async def test_looking_at_a_database_changes_nothing_in_it(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    await store.close()
    before = (tmp_path / "a.db").read_bytes()
    assert files(tmp_path / "a.db").check().messages == 5
    assert (tmp_path / "a.db").read_bytes() == before
    with pytest.raises(SchemaError, match="no database"):
        files(tmp_path / "none.db").check()
    (tmp_path / "text.db").write_text("no database at all, but long enough to look like one" * 100)
    with pytest.raises(SchemaError, match="not a SQLite"):
        files(tmp_path / "text.db").check()


# Putting one back


async def test_a_copy_is_put_back_into_an_empty_folder_alone(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    await store.copy(tmp_path / "copy.db", NOW)
    await store.close()
    target = tmp_path / "new" / "b.db"
    facts, aside = files(target).restore(tmp_path / "copy.db", NOW, replace=False)
    assert (facts.messages, aside) == (5, None)
    assert names(target.parent) == {"b.db", "b.db.lock"}
    with pytest.raises(ConflictError, match="--replace"):
        files(target).restore(tmp_path / "copy.db", NOW, replace=False)


async def test_what_is_replaced_is_kept_and_its_log_does_not_stay(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    await store.copy(tmp_path / "copy.db", NOW)
    with pytest.raises(OccupiedError):
        files(tmp_path / "a.db").restore(tmp_path / "copy.db", NOW, replace=True)
    await store.add([message()], [FLOW], NOW)
    unclean = {end: (tmp_path / f"a.db{end}").read_bytes() for end in ("", "-wal")}
    await store.close()
    for end, data in unclean.items():  # as a kill leaves it
        (tmp_path / f"a.db{end}").write_bytes(data)
    facts, aside = files(tmp_path / "a.db").restore(tmp_path / "copy.db", NOW, replace=True)
    assert facts.messages == 5 and not (tmp_path / "a.db-wal").exists()
    assert aside is not None and facts_of(aside).messages == 6
    again = await opened(tmp_path / "a.db")
    assert len(await again.find(EVERYTHING, None, 100)) == 5
    await again.close()


async def test_what_cannot_be_put_back_leaves_what_is_there(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db", 500)
    await store.copy(tmp_path / "copy.db", NOW)
    await store.close()
    before = (tmp_path / "a.db").read_bytes()
    bad = tmp_path / "bad.db"
    bad.write_bytes((tmp_path / "copy.db").read_bytes())
    spoil(bad)
    newer_one = tmp_path / "newer.db"
    newer_one.write_bytes((tmp_path / "copy.db").read_bytes())
    connection = apsw.Connection(str(newer_one))
    connection.pragma("user_version", FIRST + 1)
    connection.close()
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE a (b)")
    connection.close()
    (tmp_path / "empty.db").touch()
    cases = [(bad, UnavailableError), (newer_one, SchemaError), (other, SchemaError),
             (tmp_path / "empty.db", SchemaError), (tmp_path / "none.db", UnavailableError)]  # fmt: skip
    for source, error in cases:
        with pytest.raises(error):
            files(tmp_path / "a.db").restore(source, NOW, replace=True)
        assert (tmp_path / "a.db").read_bytes() == before, source
        assert not list(tmp_path.glob("*.part*")) + list(tmp_path.glob("*.replaced*"))


async def test_a_plain_copy_with_its_log_is_put_back_whole_and_marked(tmp_path: Path) -> None:
    store = await filled(tmp_path / "a.db")
    for end in ("", "-wal"):
        (tmp_path / f"b.db{end}").write_bytes((tmp_path / f"a.db{end}").read_bytes())
    await store.close()
    facts, _ = files(tmp_path / "new" / "c.db").restore(tmp_path / "b.db", NOW, replace=False)
    assert facts.messages == 5
    again = await opened(tmp_path / "new" / "c.db")
    assert read(await again.documents("installation")).hold is not None
    await again.close()


# The schema


@pytest.mark.usefixtures("newer")
async def test_a_start_migrates_and_keeps_a_copy_of_what_was(tmp_path: Path) -> None:
    await make_old(tmp_path / "a.db")
    store = await opened(tmp_path / "a.db")
    await store.close()
    assert pragma(tmp_path / "a.db", "user_version") == FIRST + 2
    (copy,) = (tmp_path / "backups").iterdir()
    assert copy.name.startswith(f"before-schema-{FIRST + 2}-")
    assert pragma(copy, "user_version") == FIRST
    assert facts_of(copy).messages == 5


async def make_old(path: Path, rows: int = 5) -> None:
    """A store as the program before wrote it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_migrate, "load_migrations", load_migrations)
        store = await filled(path, rows) if rows else await opened(path)
        await store.close()


@pytest.mark.usefixtures("newer")
async def test_the_last_three_copies_are_kept_and_of_nothing_none_is_made(tmp_path: Path) -> None:
    await make_old(tmp_path / "empty" / "a.db", 0)
    assert files(tmp_path / "empty" / "a.db").migrate(FIRST + 2, NOW) == (FIRST, None)
    assert names(tmp_path / "empty" / "backups") == set()
    await make_old(tmp_path / "a.db")
    mine = tmp_path / "backups" / "mine.db"
    made = []
    for number in range(5):
        to = FIRST + 2 if number % 2 == 0 else FIRST
        made.append(files(tmp_path / "a.db").migrate(to, NOW + number)[1])
        mine.touch()
    assert names(tmp_path / "backups") == {"mine.db", *(each.name for each in made[-3:] if each)}


@pytest.mark.usefixtures("newer")
async def test_the_schema_goes_down_and_up_again_without_losing_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make_old(path)
    old = schema(path)
    assert files(path).migrate(FIRST + 2, NOW)[0] == FIRST
    assert schema(path) != old
    assert files(path).migrate(FIRST + 1, NOW + 1)[0] == FIRST + 2
    assert files(path).migrate(FIRST, NOW + 2)[0] == FIRST + 1
    assert schema(path) == old
    assert files(path).migrate(FIRST, NOW + 3) == (FIRST, None)
    assert facts_of(path).messages == 5
    files(path).migrate(FIRST + 2, NOW + 4)
    files(path).migrate(FIRST, NOW + 5)  # both steps at once
    assert (schema(path), pragma(path, "user_version")) == (old, FIRST)
    files(path).migrate(FIRST + 2, NOW + 6)
    store = await opened(path)
    with pytest.raises(OccupiedError):
        files(path).migrate(FIRST, NOW)
    await store.close()
    for to in (0, FIRST + 3):
        with pytest.raises(InvalidError, match=f"1 to {FIRST + 2}"):
            files(path).migrate(to, NOW)
    with pytest.raises(SchemaError, match="no database"):
        files(tmp_path / "none.db").migrate(FIRST, NOW)


def schema(path: Path) -> list[object]:
    connection = apsw.Connection(str(path))
    try:
        sql = "SELECT s.name, c.name FROM sqlite_schema s LEFT JOIN pragma_table_info(s.name) c ORDER BY 1, 2"
        return list(connection.execute(sql).fetchall())
    finally:
        connection.close()


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await filled(tmp_path / "a.db")).close()
    before = schema(tmp_path / "a.db")
    monkeypatch.setattr(sqlite_migrate, "load_migrations", lambda _d: (*load_migrations("sqlite"), BAD))
    with pytest.raises(apsw.SQLError, match="nowhere"):
        await opened(tmp_path / "a.db")
    assert (schema(tmp_path / "a.db"), pragma(tmp_path / "a.db", "user_version")) == (before, FIRST)


@pytest.mark.usefixtures("newer")
async def test_without_room_for_the_copy_nothing_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_old(tmp_path / "a.db")

    def full(*_: object) -> None:
        raise UnavailableError("the disk is full")

    monkeypatch.setattr(sqlite_files, "copy_database", full)
    with pytest.raises(UnavailableError, match="full"):
        await opened(tmp_path / "a.db")
    assert pragma(tmp_path / "a.db", "user_version") == FIRST


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"0001_a.sql": "x", "0003_b.sql": "x", "0003_b.down.sql": "y"}, "not numbered"),
        ({"0001_a.sql": "x", "0002_b.sql": "x"}, "needs its .down.sql"),
        ({"0001_a.sql": "x", "0001_a.down.sql": "x"}, "needs its .down.sql"),
    ],
)
def test_every_step_but_the_first_has_a_way_back(tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    for name, text in wrong.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_migrations(tmp_path)


def test_the_steps_are_read_with_their_way_back(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0002_b.sql", "0002_b.down.sql"):
        (tmp_path / name).write_text(name)
    assert read_migrations(tmp_path) == (
        Migration(1, "a", "0001_a.sql"), Migration(2, "b", "0002_b.sql", "0002_b.down.sql"),
    )  # fmt: skip


def test_a_copy_of_an_older_program_is_marked_as_well() -> None:
    (made,) = mark_copy([Document("installation", "", "other", "{}", 1)], NOW)
    assert read([made]).hold is not None
