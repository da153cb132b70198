"""Checkpoints beside commits, and a disk that fails to flush one (rule 1)."""

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from paceline.stores import sqlite_checkpoint, sqlite_writer
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_schema import Session
from tests.contracts.stores.making import FLOW, NOW, message


class Flushes:
    """Every flush of a checkpoint, and which of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.failing, self.allowed = 0, False, threading.Event()
        self.allowed.set()
        usual = sqlite_checkpoint.flush

        def flush(file: int) -> None:
            self.allowed.wait(20)
            self.count += 1
            if self.failing:
                raise OSError(5, "Input/output error")
            usual(file)

        monkeypatch.setattr(sqlite_checkpoint, "flush", flush)
        for module in (sqlite_checkpoint, sqlite_writer):
            monkeypatch.setattr(module, "RESTART_PAGES", 40)
        monkeypatch.setattr(sqlite_writer, "_IDLE_CHECKPOINT_PAGES", 10)
        monkeypatch.setattr(sqlite_writer, "PAGES", 10)


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    return Flushes(monkeypatch)


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open(NOW)
    return store


async def write(store: SqliteStore, commits: int) -> list[int]:
    """So many commits, one message each; whoever checkpoints has ended by the time this returns."""
    rows = [message() for _ in range(commits)]
    for row in rows:
        await store.add([row], [FLOW], NOW)
        checkpointer(store).idle.wait(20)
    return [row.id for row in rows]


def checkpointer(store: SqliteStore) -> Any:
    assert store._writer_or_none is not None
    return store._writer_or_none._checkpointer


def wal_pages(store: SqliteStore) -> int:
    """The pages that the log has by now, those that were written over counted once."""
    return store.path.with_name(store.path.name + "-wal").stat().st_size // 4120


def kept(path: Path) -> set[int]:
    """The messages that the file and its log hold, read as after a power cut: from a copy."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(path.with_name(path.name + "-wal"), copy.with_name(copy.name + "-wal"))
    connection = apsw.Connection(str(copy))
    try:
        assert connection.pragma("integrity_check") == "ok"
        return {id_ for (id_,) in connection.execute("SELECT id FROM message")}
    finally:
        connection.close()


async def test_every_checkpoint_is_flushed_and_the_log_stays_short(tmp_path: Path, flushes: Flushes) -> None:
    store = await opened(tmp_path / "a.db")
    await write(store, 200)
    facts = await store.health()
    assert flushes.count >= 10 and facts["flush_failed"] is False
    assert facts["wal_bytes"] < 200 * 4096
    await store.close()
    assert not (tmp_path / "a.db-wal").exists()


async def test_searches_without_a_pause_do_not_keep_the_log_from_beginning_anew(
    tmp_path: Path, flushes: Flushes
) -> None:
    store = await opened(tmp_path / "a.db")
    assert store._slow is not None
    over, slow = False, store._slow

    def look(session: Session) -> None:
        session.connection.execute("SELECT count(*) FROM message").fetchall()
        time.sleep(0.05)

    async def search(after: float) -> None:
        await asyncio.sleep(after)
        while not over:
            await slow.read(look)

    searches = [asyncio.create_task(search(after)) for after in (0, 0.025)]  # each reads while the other ends
    lengths = []
    for _ in range(30):
        await write(store, 20)
        lengths.append(wal_pages(store))
        await asyncio.sleep(0.02)
    over = True
    await asyncio.gather(*searches)
    await store.close()
    assert max(lengths) < 1000, lengths


async def test_the_log_does_not_begin_anew_before_its_checkpoint_is_flushed(
    tmp_path: Path, flushes: Flushes
) -> None:
    store = await opened(tmp_path / "a.db")
    flushes.allowed.clear()
    rows = [message() for _ in range(60)]
    for row in rows:  # the first checkpoint begins and cannot end
        await store.add([row], [FLOW], NOW)
    assert not checkpointer(store).idle.is_set()
    database = (tmp_path / "a.db").read_bytes()
    (tmp_path / "b.db").write_bytes(
        database[:4096] + bytes(len(database) - 4096)
    )  # none of its pages arrived
    shutil.copy(tmp_path / "a.db-wal", tmp_path / "b.db-wal")
    assert kept(tmp_path / "b.db") == {row.id for row in rows}
    flushes.allowed.set()
    await store.close()


async def test_after_a_flush_that_failed_the_log_is_kept_until_the_next_start(
    tmp_path: Path, flushes: Flushes
) -> None:
    flushes.failing = True
    store = await opened(tmp_path / "a.db")
    ids = await write(store, 100)
    assert (await store.health())["flush_failed"] is True
    assert flushes.count == 1  # nothing that a later flush says can be trusted
    ids += await write(store, 100)
    await store.close()
    database = (tmp_path / "a.db").read_bytes()
    (tmp_path / "b.db").write_bytes(database[:4096] + bytes(len(database) - 4096))
    shutil.copy(tmp_path / "a.db-wal", tmp_path / "b.db-wal")
    assert kept(tmp_path / "b.db") == set(ids)
    flushes.failing = False
    store = await opened(tmp_path / "b.db")
    assert (await store.health())["flush_failed"] is False
    assert len(await store.get(ids)) == len(ids)
    await store.close()
