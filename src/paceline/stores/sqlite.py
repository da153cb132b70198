"""The embedded store: one SQLite file, one process, nothing else to install.

Writes go through one thread that commits everything asked for at the same time together (`sqlite_writer`);
reads have their own threads and never wait for it. Statements are in ``sql/sqlite``.
"""

import asyncio
import shutil
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from paceline.model.errors import ConflictError, UnavailableError
from paceline.model.ids import first_of
from paceline.model.messages import (
    AccountNote,
    Added,
    FlowKey,
    HandedOver,
    Mark,
    NewMessage,
    Revision,
    Settlement,
)
from paceline.model.states import ENDED
from paceline.stores import sqlite_find, sqlite_writes
from paceline.stores.base import (
    Ahead,
    Attempt,
    CopyFacts,
    Daily,
    Document,
    Expired,
    Filter,
    FlowAfter,
    FlowPart,
    FlowState,
    Occupancy,
    Promoted,
    StoredMessage,
    Tally,
    level,
)
from paceline.stores.calls import HandOver, Kind, Moment, Revise, Settle
from paceline.stores.sqlite_copy import Mark as CopyMark
from paceline.stores.sqlite_copy import copy_database, stand_back
from paceline.stores.sqlite_files import SqliteFiles
from paceline.stores.sqlite_gap import Gap
from paceline.stores.sqlite_reader import Readers
from paceline.stores.sqlite_schema import Ownership, Session, open_writer
from paceline.stores.sqlite_writer import Writer
from paceline.stores.sqlite_writes import Work, encode, encoded

T = TypeVar("T")

_SEARCH_SECONDS = 10.0
_EXPORT_PAGE = 500
_ROW_CHARACTERS = 8_192
"""Content of so many characters more weighs as much as one message more: then 40 MB make a commit."""


class SqliteStore:
    """A `Store` in one SQLite file. `open` binds it to the running event loop."""

    nodes = None
    """One process owns the file."""

    def __init__(self, path: str | Path, mark: CopyMark = lambda _known, _now: ()) -> None:
        """Name the file; its folder is made when it is missing. `mark` makes a copy know that it is one."""
        self.path = Path(path)
        self._mark = mark
        self._stop_copying = threading.Event()
        self._copying: asyncio.Future[CopyFacts] | None = None
        self._writer_or_none: Writer | None = None
        self._quick: Readers | None = None
        self._slow: Readers | None = None
        self._gap = Gap()

    async def open(self, now: int) -> None:
        """Take the file, bring its schema up to date and start the threads."""
        session, ownership = await asyncio.to_thread(self._open, now)
        self._writer_or_none = Writer(session, self.path, asyncio.get_running_loop(), ownership, self._gap)

    async def close(self) -> None:
        """Finish what was asked for and let the file go; a copy under way is given up."""
        self._stop_copying.set()
        if self._copying is not None:
            await asyncio.wait([self._copying])
        readers = [pool for pool in (self._quick, self._slow) if pool is not None]
        self._quick = self._slow = None
        for pool in readers:
            await asyncio.to_thread(pool.close)
        if self._writer_or_none is not None:
            await self._writer_or_none.stop()
            self._writer_or_none = None

    # Writes

    def add(
        self, rows: Sequence[NewMessage], flows: Sequence[FlowKey], now: int
    ) -> asyncio.Future[list[Added]]:
        """See `Store.add`."""
        weight = sum(1 + len(row.content) // _ROW_CHARACTERS for row in rows)
        return self._writer.submit(Kind.ADD, encoded(rows, flows), weight)

    async def hand_over(self, marks: Sequence[Mark], now: int) -> list[HandedOver]:
        """See `Store.hand_over`."""
        answer: list[HandedOver] = await self._writer.submit(Kind.HAND_OVER, HandOver(marks), len(marks))
        return answer

    async def settle(
        self, settlements: Sequence[Settlement], notes: Sequence[AccountNote],
        follow_ups: Sequence[NewMessage], flows: Sequence[FlowKey], now: int,
    ) -> list[int]:  # fmt: skip
        """See `Store.settle`."""
        work = Settle(settlements, notes, follow_ups, flows)
        answer: list[int] = await self._writer.submit(
            Kind.SETTLE, work, len(settlements) + len(notes) + len(follow_ups)
        )
        return answer

    async def promote(self, now: int, most: int, ahead: Ahead = level) -> Promoted:
        """See `Store.promote`."""
        answer: Promoted = await self._writer.submit(Kind.PROMOTE, Moment(now, most, ahead), most)
        return answer

    async def expire(self, now: int, most: int, ahead: Ahead = level) -> Expired:
        """See `Store.expire`."""
        answer: Expired = await self._writer.submit(Kind.EXPIRE, Moment(now, most, ahead), most)
        return answer

    async def revise(
        self, revisions: Sequence[Revision], now: int, flows: Sequence[FlowKey] = ()
    ) -> list[int]:
        """See `Store.revise`."""
        answer: list[int] = await self._writer.submit(
            Kind.REVISE, Revise(revisions, flows, now), len(revisions)
        )
        return answer

    async def put(self, documents: Sequence[Document], shift_waits: int = 0) -> None:
        """See `Store.put`."""
        work = Work("put", encode(documents), ahead=shift_waits or None)
        await self._other(work, len(documents), answers=False)

    async def remove(self, kind: str, tenant: str, name: str) -> bool:
        """See `Store.remove`."""
        return await self._other(Work("remove", encode([(kind, tenant, name)])), 1) > 0

    async def clean(self, wanted: Filter, finished_before: int | None, keep: int | None, most: int) -> int:
        """See `Store.clean`. The search runs beside the writer, which then looks at each message again."""
        states = tuple(sorted(ENDED.intersection(wanted.state) if wanted.state else ENDED))
        if not states:
            return 0
        ended = msgspec.structs.replace(wanted, state=tuple(map(int, states)))
        if keep is not None:
            left = sum((await self.count(ended)).values())
            most = min(most, left - keep)
        if most <= 0:
            return 0
        ids = await self._search(
            lambda s: sqlite_find.find_ids(s, ended, None, most, oldest=True, finished_before=finished_before)
        )
        if not ids:
            return 0
        return await self._other(Work("clean", encode(ids)), len(ids))

    async def clean_journal(self, finished_before: int, most: int) -> int:
        """See `Store.clean_journal`. A message that is still kept takes its last line's ending over."""
        found = await self._search(
            lambda s: s.value("old_lines", finished_before, most, first_of(max(0, finished_before)))
        )
        lines = msgspec.json.decode(found, type=list[tuple[int, int]])
        return await self._other(Work("clean_journal", encode(lines), now=finished_before), len(lines))

    # Reads

    async def flows(self) -> list[FlowState]:
        """See `Store.flows`."""
        return await self._rows("flows", list[FlowState])

    async def entries(self, requests: Sequence[FlowAfter]) -> list[FlowPart]:
        """See `Store.entries`. Requests of about the same size share a statement; each is cut to its own."""
        by_size: dict[int, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            by_size[1 << max(0, request.limit).bit_length()].append(place)

        def read(session: Session) -> list[FlowPart]:
            parts: dict[int, FlowPart] = {}
            for size, places in by_size.items():
                text = session.value("entries", encode([requests[p] for p in places]), size)
                parts.update(zip(places, msgspec.json.decode(text, type=list[FlowPart]), strict=True))
            return [_cut(parts[place], request.limit) for place, request in enumerate(requests)]

        return await self._readers(self._quick).read(read)

    async def processing(self) -> list[HandedOver]:
        """See `Store.processing`."""
        return await self._rows("processing", list[HandedOver])

    async def occupancy(self, since: int, accounts: Sequence[tuple[str, int]] | None) -> list[Occupancy]:
        """See `Store.occupancy`. Account by account, oldest first."""

        def read(session: Session) -> list[Occupancy]:
            by_newest: dict[int, list[str]] = defaultdict(list)
            if accounts is None:
                by_newest[-1] = msgspec.json.decode(session.value("occupants"), type=list[str])
            else:
                for account, newest in accounts:
                    by_newest[newest].append(account)
            found: list[Occupancy] = []
            for newest, keys in by_newest.items():
                text = session.value("occupancy_of", encode(keys), since, newest)
                for lines in msgspec.json.decode(text, type=list[list[Occupancy]]):
                    found += lines
            return found

        return await self._readers(self._quick).read(read)

    async def get(self, ids: Sequence[int]) -> list[StoredMessage]:
        """See `Store.get`."""
        return await self._rows("get", list[StoredMessage], encode(ids))

    async def find(self, wanted: Filter, before: int | None, limit: int) -> list[StoredMessage]:
        """See `Store.find`."""

        def read(session: Session) -> list[StoredMessage]:
            ids = sqlite_find.find_ids(session, wanted, before, limit)
            text = session.value("get", encode(ids))
            return msgspec.json.decode(text, type=list[StoredMessage])

        return await self._search(read)

    async def count(self, wanted: Filter) -> dict[int, int]:
        """See `Store.count`."""
        return await self._search(lambda session: sqlite_find.count(session, wanted))

    async def ahead(self, flow: int, turn: int, id: int) -> int:  # noqa: A002 - the field's own name
        """See `Store.ahead`."""
        ahead: int = await self._search(lambda session: session.value("ahead", flow, turn, id))
        return ahead

    async def attempts(self, ids: Sequence[int]) -> list[Attempt]:
        """See `Store.attempts`."""
        return await self._rows("attempts", list[Attempt], encode(ids))

    async def tallies(self) -> list[Tally]:
        """See `Store.tallies`."""
        return await self._rows("tallies", list[Tally])

    async def daily(self, days: Sequence[int]) -> list[Daily]:
        """See `Store.daily`."""
        return await self._rows("daily", list[Daily], encode(days))

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `Store.flow_keys`."""
        return dict(await self._rows("flow_keys", list[tuple[int, FlowKey]]))

    async def notes(self) -> list[AccountNote]:
        """See `Store.notes`."""
        return await self._rows("notes", list[AccountNote])

    async def documents(self, kind: str) -> list[Document]:
        """See `Store.documents`."""
        return await self._rows("documents", list[Document], kind)

    async def greatest_id(self) -> int:
        """See `Store.greatest_id`."""
        greatest: int = await self._readers(self._quick).read(lambda session: session.value("greatest_id"))
        return greatest

    async def copy(self, target: Path, now: int) -> CopyFacts:
        """See `Store.copy`. One at a time, in a thread and through a connection of its own."""
        if self._copying is not None:
            raise ConflictError("a copy is being made already; wait until it is finished")

        def work() -> CopyFacts:
            stand_back()
            return copy_database(self.path, target, self._mark, now, self._stop_copying)

        pool = ThreadPoolExecutor(1, thread_name_prefix="paceline-copy")
        self._copying = asyncio.get_running_loop().run_in_executor(pool, work)
        self._copying.add_done_callback(self._copied)
        pool.shutdown(wait=False)
        return await asyncio.shield(self._copying)  # who asked may go away; half a copy helps nobody

    def _copied(self, copying: "asyncio.Future[CopyFacts]") -> None:
        self._copying = None
        copying.exception()  # it is told to who asked; nobody else needs to hear that nobody did

    async def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        writer = self._writer
        figures = writer.figures
        return {
            "engine": "sqlite",
            "version": apsw.sqlite_lib_version(),
            "file": str(self.path),
            "file_bytes": _size(self.path),
            "wal_bytes": _size(self.path.with_name(self.path.name + "-wal")),
            "free_bytes": shutil.disk_usage(self.path.parent).free,
            "commits": figures.commits,
            "commit_ms": round(figures.commit_ms, 3),
            "checkpoint_ms": round(figures.checkpoint_ms, 3),
            "failures": figures.failures,
            "flush_failed": figures.flush_failed,
            "pending": writer.waiting,
        }

    async def export(self, wanted: Filter) -> AsyncIterator[list[StoredMessage]]:
        """See `Store.export`. Each page is its own read, so that a long export holds back no clean-up."""
        before: int | None = None
        while page := await self.find(wanted, before, _EXPORT_PAGE):
            yield page
            before = page[-1].id

    def _open(self, now: int) -> tuple[Session, Ownership]:
        ownership = Ownership(self.path)
        try:
            session = open_writer(
                self.path, lambda to: SqliteFiles(self.path, self._mark).copy_before(to, now)
            )
        except BaseException:
            ownership.release()
            raise
        self._quick = Readers(self.path, 1, "paceline-read", None)
        self._slow = Readers(self.path, 2, "paceline-search", _SEARCH_SECONDS, self._gap)
        return session, ownership

    @property
    def _writer(self) -> Writer:
        if self._writer_or_none is None:
            raise UnavailableError("the store is not open")
        return self._writer_or_none

    async def _other(self, work: Work, rows: int, *, answers: bool = True) -> int:
        answer: int | None = await self._writer.submit(Kind.OTHER, sqlite_writes.Other(work, answers), rows)
        return answer or 0

    @staticmethod
    def _readers(pool: Readers | None) -> Readers:
        if pool is None:
            raise UnavailableError("the store is not open")
        return pool

    async def _rows(self, name: str, kind: type[T], *values: Any) -> T:
        return await self._readers(self._quick).read(
            lambda session: msgspec.json.decode(session.value(name, *values), type=kind)
        )

    async def _search(self, act: Callable[[Session], T]) -> T:
        return await self._readers(self._slow).read(act)


def _cut(part: FlowPart, limit: int) -> FlowPart:
    """A statement reads a few more than asked for: that there are more is all they tell."""
    return FlowPart(part.flow, part.entries[:limit], len(part.entries) > limit)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
