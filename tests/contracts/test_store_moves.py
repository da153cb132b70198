"""A whole store moved into another one: everything arrives, and at no moment can both be started."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from paceline import wiring
from paceline.cli import main
from paceline.engine import store_copy
from paceline.model.errors import ConflictError
from paceline.model.messages import AccountNote
from paceline.model.outcomes import Temporary
from paceline.model.states import State
from paceline.stores.base import Filter, Store
from paceline.stores.postgres import PostgresStore
from paceline.stores.sqlite import SqliteStore
from paceline.stores.transfer import TABLES, Row
from tests.contracts.stores.audited import START, _one, made
from tests.contracts.stores.making import FLOW, mark, message
from tests.contracts.stores.postgres_server import url_for
from tests.contracts.test_engine_support import ADMIN, Engine, running

KINDS = ("sqlite", "postgresql")


def place(kind: str, folder: Path, name: str) -> str:
    """A store that is not there yet."""
    return str(folder / name / "paceline.db") if kind == "sqlite" else url_for(folder / name)


def opened(where: str) -> Store:
    if where.startswith("postgresql:"):
        return PostgresStore(where)
    Path(where).parent.mkdir(exist_ok=True)
    return SqliteStore(Path(where), lambda _documents, _now: [])


async def _also(engine: Engine) -> None:
    await engine.send(idempotency_key="order-7", metadata={"n": 1}, group="g", source="s")
    await engine.service.accounts.pause(ADMIN, "slow")
    await engine.send(account="slow", text="stays behind ✓ Zuñiga 你好")
    await _one(engine, Temporary("x", "later"))
    await engine.send(scheduled_at=engine.later(), text="x" * 100_000)


def fill(where: str, folder: Path) -> None:
    """A store with every kind of life in it, one of them under way, and a deleted greatest id."""
    made(folder, _also, opened(where))

    async def more() -> None:
        store = opened(where)
        await store.open(START)
        greatest = await store.greatest_id()
        rows = [message(id=greatest + 10 + each, created_at=START) for each in range(2)]
        await store.add(rows, [FLOW], START)
        assert len(await store.hand_over([mark(rows[0])], START)) == 1
        await store.settle(
            [], [AccountNote("acme/bot", START + 9, "ann@example.com", "", None)], [], [], START
        )
        await store.close()

    asyncio.run(more())


async def _dump(where: str) -> dict[str, list[Row]]:
    moving = wiring.make_moving(where)
    await moving.open(START)
    try:
        async with moving.moment():
            found = {table: [row async for page in moving.read(table) for row in page] for table in TABLES}
        return found | {"greatest": [(await moving.greatest_id(),)]}
    finally:
        await moving.close()


def dump(where: str) -> dict[str, list[Row]]:
    return asyncio.run(_dump(where))


def copy(*arguments: str) -> int:
    return main.run(["store", "copy", *arguments])


async def _start(where: str, folder: Path) -> tuple[int, str]:
    """Start an engine on it; messages there, and why everything is on hold."""
    async with running(folder, store=opened(where)) as engine:
        held = engine.service.holds.held
        return sum((await engine.store.count(Filter())).values()), held.cause if held else ""


def start(where: str, folder: Path) -> tuple[int, str]:
    return asyncio.run(_start(where, folder))


def refused(where: str, folder: Path) -> str:
    with pytest.raises(ConflictError) as raised:
        start(where, folder)
    return str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", KINDS)
def test_everything_arrives_and_comes_back(
    kind: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = place(kind, tmp_path, "1"), place(to, tmp_path, "2"), place(kind, tmp_path, "3")
    fill(first, tmp_path)
    before = dump(first)
    states = {row[2] for row in before["entry"]}
    assert states == {int(state) for state in State} and all(before[table] for table in TABLES)
    capsys.readouterr()
    assert copy(first, second, "--json") == 0
    view: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert view["rows"] == {table: len(before[table]) for table in TABLES} and view["broken"] == []
    assert dump(second) == before
    assert copy(second, third) == 0
    assert "read back and audited" in capsys.readouterr().out
    assert dump(third) == before
    assert "was moved to" in refused(first, tmp_path) and "was moved to" in refused(second, tmp_path)
    assert start(third, tmp_path) == (len(before["message"]), "")


@pytest.mark.parametrize("to", KINDS)
def test_what_is_kept_goes_on_and_the_copy_starts_on_hold(to: str, tmp_path: Path) -> None:
    first, second = place("sqlite", tmp_path, "1"), place(to, tmp_path, "2")
    fill(first, tmp_path)
    assert copy(first, second, "--keep") == 0
    count, held = start(second, tmp_path)
    assert held == "restored"
    assert start(first, tmp_path) == (count, "")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_left_behind_can_be_copied_and_starts_on_hold(kind: str, tmp_path: Path) -> None:
    first, second, third = (
        place(kind, tmp_path, "1"),
        place("sqlite", tmp_path, "2"),
        place("sqlite", tmp_path, "3"),
    )
    fill(first, tmp_path)
    assert copy(first, second) == 0
    assert copy(first, third) == 1
    assert copy(first, third, "--keep") == 0
    assert start(third, tmp_path)[1] == "restored"


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("cut", ["writing", "reading back", "marking"])
def test_cut_off_anywhere_nothing_can_be_started_twice_and_it_can_be_made_again(
    to: str, cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place("sqlite", tmp_path, "1"), place(to, tmp_path, "2")
    fill(first, tmp_path)
    before = dump(first)
    kind = type(wiring.make_moving(second))
    with monkeypatch.context() as broken:
        if cut == "writing":
            write = kind.write

            async def half(self: Any, table: str, rows: Sequence[Row]) -> None:
                if table == "entry":
                    raise KeyboardInterrupt
                await write(self, table, rows)

            broken.setattr(kind, "write", half)
        elif cut == "reading back":
            broken.setattr(store_copy.StoreCopy, "_read_back", _interrupt)
        else:
            put, done = kind.put, []

            async def once(self: Any, document: Any) -> None:
                done.append(self)
                if len([each for each in done if each.name == self.name]) > 1:
                    raise KeyboardInterrupt
                await put(self, document)

            broken.setattr(kind, "put", once)
        assert copy(first, second) == 130
    assert "unfinished copy" in refused(second, tmp_path)
    if cut == "marking":
        assert "was moved to" in refused(first, tmp_path)
        assert copy(first, place("sqlite", tmp_path, "3")) == 1  # it may only go on to where it went
    else:
        assert dump(first) == before
    capsys.readouterr()
    assert copy(second, place("sqlite", tmp_path, "3")) == 1
    assert "unfinished copy" in capsys.readouterr().err
    assert copy(first, second) == 0
    assert dump(second) == before
    assert start(second, tmp_path)[1] == ""


async def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("to", KINDS)
def test_a_value_that_arrives_differently_is_found(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place("sqlite", tmp_path, "1"), place(to, tmp_path, "2")
    fill(first, tmp_path)
    kind = type(wiring.make_moving(second))
    write = kind.write

    async def wrong(self: Any, table: str, rows: Sequence[Row]) -> None:
        if table == "account_note":
            rows = [(*row[:3], row[3] and row[3] + 1, row[4]) for row in rows]
        await write(self, table, rows)

    monkeypatch.setattr(kind, "write", wrong)
    capsys.readouterr()
    assert copy(first, second) == 1
    assert "read back differs: account_note" in capsys.readouterr().err
    assert "unfinished copy" in refused(second, tmp_path)
    assert start(first, tmp_path)[1] == ""


@pytest.mark.parametrize("to", KINDS)
def test_a_target_with_anything_in_it_is_left_alone(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place("sqlite", tmp_path, "1"), place(to, tmp_path, "2")
    fill(first, tmp_path)
    start(second, tmp_path)
    before = dump(second)
    assert copy(first, second) == 1
    assert "is not empty" in capsys.readouterr().err
    assert dump(second) == before and start(first, tmp_path)[1] == ""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_store_in_use_is_neither_moved_nor_moved_into(kind: str, tmp_path: Path) -> None:
    first, second = place(kind, tmp_path, "1"), place("sqlite", tmp_path, "2")
    async with running(tmp_path, store=opened(first)):
        assert await asyncio.to_thread(copy, first, second) == 1
    async with running(tmp_path, store=opened(second)):
        assert await asyncio.to_thread(copy, first, second) == 1


def test_a_nul_in_a_providers_words_becomes_the_replacement_where_it_has_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place("sqlite", tmp_path, "1"), place("postgresql", tmp_path, "2")
    fill(first, tmp_path)
    connection = apsw.Connection(first)
    connection.execute(
        "UPDATE attempt SET text = 'a' || char(0) || 'b' WHERE message = (SELECT min(message) FROM attempt)"
    )
    assert (changed := connection.changes()) >= 1
    connection.close()
    capsys.readouterr()
    assert copy(first, second, "--json") == 0
    assert json.loads(capsys.readouterr().out)["replaced"] == changed
    assert {row[11] for row in dump(second)["attempt"][:changed]} == {"a\ufffdb"}


def test_what_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = place("sqlite", tmp_path, "1"), place("sqlite", tmp_path, "2")
    assert copy(first, second) == 3
    assert "there is no store" in capsys.readouterr().err
    assert not Path(first).exists() and not Path(second).exists()
    assert copy(first, first) == 1
    assert copy(first, "mysql://h/a") == 2
