"""What the server has to be like: reachable, recent, in UTF8, flushing, no standby and with no pooler before it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from paceline.model.errors import SchemaError, UnavailableError
from paceline.stores import postgres_session
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_address import parse_address
from tests.contracts.stores.making import FLOW, NOW, message, one
from tests.contracts.stores.postgres_cut import Cut, way_to
from tests.contracts.stores.postgres_server import PrivateServer, base, execute, url_for


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(
        UnavailableError, match=r"postgresql://me@127\.0\.0\.1:9/x cannot be reached"
    ) as refused:
        await PostgresStore("postgresql://me:secret@127.0.0.1:9/x").open(NOW)
    assert "secret" not in str(refused.value)


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    url = base(tmp_path)[0].rpartition("/")[0] + "/no_such_database"
    with pytest.raises(UnavailableError, match="does not exist"):
        await PostgresStore(url).open(NOW)


async def test_another_encoding_than_utf8_is_refused(tmp_path: Path) -> None:
    url, _ = base(tmp_path)
    name = url.rpartition("/")[2] + "_latin"
    create = f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    await execute(url, create)
    try:
        with pytest.raises(SchemaError, match="use a database with UTF8"):
            await PostgresStore(f"{url.rpartition('/')[0]}/{name}").open(NOW)
    finally:
        await execute(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("weak", ["off", "local"])
async def test_an_ordinary_role_is_enough_and_a_commit_is_on_disk_whatever_it_is_set_to(
    tmp_path: Path, weak: str
) -> None:
    url, role = base(tmp_path)
    await execute(
        url, f"CREATE ROLE {role} LOGIN", f"ALTER ROLE {role} SET synchronous_commit = {weak}",
        f"GRANT CREATE ON DATABASE {url.rpartition('/')[2]} TO {role}",
    )  # fmt: skip
    try:
        async with way_to(url_for(tmp_path).replace("://postgres@", f"://{role}@")) as way:
            store = PostgresStore(way.url)
            await store.open(NOW)
            row, other = message(), message()
            for added, cut in ((other, None), (row, Cut.HALF)):  # then it has to end a connection of its own
                way.next = cut
                await store.add([added], [FLOW], NOW)
                assert await store._writer._session.connection.fetchval("SHOW synchronous_commit") == "on"
            assert (await one(store, row.id)).state == 2
            await store.close()
    finally:
        await execute(url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.mark.slow
async def test_a_server_without_fsync_is_refused() -> None:
    server = await asyncio.to_thread(PrivateServer, "fsync=off")
    try:
        with pytest.raises(SchemaError, match=r"fsync = off: .* lost when the power fails"):
            await PostgresStore(server.url).open(NOW)
        assert await ask_of(server.url, "SELECT to_regnamespace('paceline')") is None
    finally:
        await asyncio.to_thread(server.remove)


async def ask_of(url: str, question: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_a_pooler_in_between_is_refused_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        asyncpg.Connection, "get_server_pid", lambda _self: 1
    )  # a pooler answers with its own
    with pytest.raises(SchemaError, match=r"behind a pooler .* PgBouncer.* name the server itself"):
        await PostgresStore(url_for(tmp_path)).open(NOW)


async def test_a_standby_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"version": 150000, "encoding": "UTF8", "backend": 1, "fsync": "on", "standby": True}
    connection = SimpleNamespace(get_server_pid=lambda: 1)

    async def row(_name: str) -> dict[str, Any]:
        return facts

    session: Any = SimpleNamespace(row=row, connection=connection)
    address = parse_address("postgresql://h/d")
    with pytest.raises(UnavailableError, match="is a standby"):
        await postgres_session.check_server(session, address)
    facts |= {"version": 130009, "shown": "13.9"}
    with pytest.raises(SchemaError, match=r"runs PostgreSQL 13\.9; 14 or newer"):
        await postgres_session.check_server(session, address)
