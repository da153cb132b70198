"""What is PostgreSQL's own: addresses, whose schema it is, what reads cost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from paceline.model.errors import (
    ConflictError,
    InvalidError,
    SchemaError,
    UnavailableError,
)
from paceline.model.messages import AccountNote
from paceline.stores import postgres, postgres_migrate, postgres_session
from paceline.stores.base import Filter
from paceline.stores.calls import TooSlowError
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_address import parse_address
from paceline.stores.statements import Migration, load_migrations
from tests.contracts.stores.making import EVERYTHING, FLOW, NOW, mark, message, one, settlement
from tests.contracts.stores.postgres_server import ask, base, execute, url_for


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url_for(tmp_path))
    await made.open(NOW)
    yield made
    await made.close()


# Addresses


@pytest.mark.parametrize(
    ("url", "dsn", "schema", "name"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d", "paceline", "postgresql://u@h/d"),
        ("postgresql://u:p%40@h:5433/d?schema=x_1&sslmode=require", "postgresql://u:p%40@h:5433/d?sslmode=require", "x_1", "postgresql://u@h:5433/d?schema=x_1"),
        ("postgresql://[::1]:5/d", "postgresql://[::1]:5/d", "paceline", "postgresql://[::1]:5/d"),
        ("postgresql://u:p@a:1,[::2]/d", "postgresql://u:p@a:1,[::2]/d?target_session_attrs=primary", "paceline", "postgresql://u@a:1,[::2]/d"),
        ("postgresql://a,b/d?target_session_attrs=any", "postgresql://a,b/d?target_session_attrs=any", "paceline", "postgresql://a,b/d"),
    ],
)  # fmt: skip
def test_an_address_is_taken_apart_and_shown_without_its_password(
    url: str, dsn: str, schema: str, name: str
) -> None:
    address = parse_address(url)
    assert (address.dsn, address.schema, address.name) == (dsn, schema, name)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:secret@h/d", "postgresql://u:secret@h", "postgresql://u:secret@h:x/d", "postgresql://h/d?schema=",
        "postgresql://u:secret@h/d?schema=A", "postgresql://u:secret@h/d?schema=pg_x",
        "postgresql://u:secret@a,/d", "postgresql://u:secret@a,b:x/d", "postgresql://u:secret@h/d?schema=a;drop", "postgresql://h/d?password=secret", "postgresql://u:secret@h/d#x",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


# Schemas


async def test_a_schema_of_another_program_is_left_alone(tmp_path: Path) -> None:
    url, schema = base(tmp_path)
    await execute(url, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.theirs (id integer)")
    with pytest.raises(SchemaError, match="belongs to another program"):
        await PostgresStore(url_for(tmp_path)).open(NOW)
    assert await ask(tmp_path, f"SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'") == 1


async def test_a_newer_schema_is_refused_and_an_older_one_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(url_for(tmp_path))
    await store.open(NOW)
    row = message()
    await store.add([row], [FLOW], NOW)
    await store.close()
    known = load_migrations("postgres")
    note = Migration(len(known) + 1, "note", "ALTER TABLE message ADD COLUMN note text", "-")
    bad = Migration(len(known) + 2, "bad", "CREATE TABLE extra (id integer); SELECT * FROM nowhere", "-")
    with monkeypatch.context() as patch:
        patch.setattr(postgres_migrate, "load_migrations", lambda _dialect: (*known, note, bad))
        with pytest.raises(asyncpg.UndefinedTableError):
            await PostgresStore(url_for(tmp_path)).open(NOW)
        assert await ask(tmp_path, "SELECT version FROM paceline_schema") == len(known) + 1
        assert await ask(tmp_path, "SELECT to_regclass('extra')") is None
    with pytest.raises(SchemaError, match="written by a newer Paceline"):
        await PostgresStore(url_for(tmp_path)).open(NOW)
    with monkeypatch.context() as patch:
        patch.setattr(postgres_migrate, "load_migrations", lambda _dialect: (*known, note))
        await store.open(NOW)
    assert (await one(store, row.id)).id == row.id
    await store.close()


async def test_a_step_of_the_schema_and_its_version_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = postgres_session.Session.run

    async def dies(session: postgres_session.Session, name: str, *values: Any) -> None:
        if name == "put_version":
            session.connection.terminate()
        await run(session, name, *values)

    with monkeypatch.context() as patch:
        patch.setattr(postgres_session.Session, "run", dies)
        with pytest.raises(UnavailableError):
            await PostgresStore(url_for(tmp_path)).open(NOW)
    assert await ask(tmp_path, "SELECT to_regclass('message')") is None
    store = PostgresStore(url_for(tmp_path))
    await store.open(NOW)
    await store.close()


# Reading and writing


async def test_a_read_waits_for_no_writer(tmp_path: Path, store: PostgresStore) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    url, schema = base(tmp_path)
    blocker = await asyncpg.connect(url)
    await blocker.execute("BEGIN")
    await blocker.execute(f"SELECT * FROM {schema}.fence FOR UPDATE")
    waiting = asyncio.ensure_future(store.hand_over([mark(row)], NOW))
    async with asyncio.timeout(5):
        assert (await one(store, row.id)).state == 2
        assert await store.count(Filter()) == {2: 1}
        assert [m.id for m in await store.find(EVERYTHING, None, 9)] == [row.id]
    assert not waiting.done()
    await blocker.execute("ROLLBACK")
    await blocker.close()
    assert len(await waiting) == 1


async def test_a_search_that_takes_too_long_is_stopped_and_others_go_on(
    tmp_path: Path, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.close()
    monkeypatch.setattr(postgres, "_SEARCH_SECONDS", 0.3)
    await store.open(NOW)
    url, schema = base(tmp_path)
    blocker = await asyncpg.connect(url)
    await blocker.execute(f"BEGIN; LOCK TABLE {schema}.ended IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(TooSlowError, match="narrow it by state"):
        await store.find(EVERYTHING, None, 9)
    await store.add([message()], [FLOW], NOW)
    await blocker.close()
    assert len(await store.find(EVERYTHING, None, 9)) == 1


async def test_what_a_provider_says_is_kept_even_where_it_is_no_text(store: PostgresStore) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    ending = settlement(
        given, "refuse", outcome="Permanent", code="a\x00b", text="\ud800 汉", reference="\x00"
    )
    await store.settle([ending], [AccountNote("acme/bot", stopped="no\x00")], [], [], NOW)
    found = await one(store, row.id)
    assert (found.code, found.text, found.reference) == ("a\ufffdb", "? 汉", "\ufffd")
    assert (await store.notes())[0].stopped == "no\ufffd"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_a_message_that_cannot_be_stored_is_refused_alone(store: PostgresStore, text: str) -> None:
    good, bad = message(), message(recipient=text)
    answers = await asyncio.gather(
        store.add([good], [FLOW], NOW), store.add([bad], [FLOW], NOW), return_exceptions=True
    )
    assert isinstance(answers[1], InvalidError)
    assert [m.id for m in await store.get([good.id, bad.id])] == [good.id]


async def test_a_copy_is_the_servers_own_business(store: PostgresStore, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="pg_dump"):
        await store.copy(tmp_path / "copy", NOW)


async def test_counts_of_nothing_go_with_the_next_clean_up(tmp_path: Path, store: PostgresStore) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    await store.settle([settlement(given)], [], [], [], NOW)
    assert await ask(tmp_path, "SELECT count(*) FROM tally WHERE count = 0") == 1
    assert await store.clean(Filter(), None, None, 9) == 1
    assert await ask(tmp_path, "SELECT count(*) FROM tally") == 0
