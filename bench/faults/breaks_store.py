"""What E24 and E25 take out of the store and of the bounds of memory, one guard each."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import apsw
import msgspec

from paceline.engine import events, happenings
from paceline.pacing import flows
from paceline.stores import sqlite_find
from paceline.stores.base import Filter, StoredMessage
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_checkpoint import Checkpointer
from paceline.stores.sqlite_schema import open_reader, translate
from paceline.stores.sqlite_writer import Writer
from paceline.stores.sqlite_writes import encode


def export_holds_snapshot() -> None:
    """An export reads all its pages in one transaction."""

    async def export(self: SqliteStore, wanted: Filter) -> AsyncIterator[list[StoredMessage]]:
        session = open_reader(self.path)
        session.connection.execute("BEGIN")
        before: int | None = None
        while ids := sqlite_find.find_ids(session, wanted, before, 500):
            before = ids[-1]
            text = session.value("get", encode(ids))
            yield msgspec.json.decode(text, type=list[StoredMessage])

    SqliteStore.export = export  # type: ignore[method-assign] # that is what a break is


def no_checkpoints() -> None:
    """The write-ahead log only grows."""
    Checkpointer.ask = lambda _self: True  # type: ignore[method-assign] # that is what a break is
    Writer._checkpoint = lambda _self: None  # type: ignore[method-assign] # that is what a break is


def deferred_writes() -> None:
    """Each intake also writes on a connection of its own, as other programs do: it reads, then writes."""
    add = SqliteStore.add

    def also(store: SqliteStore) -> None:
        connection = apsw.Connection(str(store.path))
        connection.set_busy_timeout(5000)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - the read is what counts
            time.sleep(0.01)
            connection.execute(f"PRAGMA user_version = {connection.pragma('user_version')}")
            connection.execute("COMMIT")
        except apsw.Error as error:
            raise translate(error) from error
        finally:
            connection.close()

    def patched(self: SqliteStore, rows: Sequence[Any], given: Any, now: int) -> Any:
        async def both() -> Any:
            await asyncio.to_thread(also, self)
            return await add(self, rows, given, now)

        return asyncio.ensure_future(both())

    SqliteStore.add = patched  # type: ignore[method-assign] # that is what a break is


def prefetch_everything() -> None:
    """All that waits is held in memory."""
    make = flows.Prefetch.__init__

    def patched(self: flows.Prefetch, _budget: int = 0) -> None:
        make(self, 1 << 40)

    flows.Prefetch.MOST = 1 << 20
    flows.Prefetch.__init__ = patched  # type: ignore[method-assign] # that is what a break is


def endless_events() -> None:
    """Every event is remembered with its whole message, for those who may ask for it."""
    events.MEMORY = happenings._LONG = 1 << 40


BREAKS = {
    patch.__name__.replace("_", "-"): patch
    for patch in (export_holds_snapshot, no_checkpoints, deferred_writes, prefetch_everything, endless_events)
}
