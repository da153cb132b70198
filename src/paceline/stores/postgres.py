"""The store in a PostgreSQL database: any number of nodes write to it, each to what it owns.

Writes go through one task that commits everything asked for at the same time together (`postgres_writer`); reads run
on connections of their own (`postgres_reader`), searches apart from what the lanes need. Statements are in
``sql/postgres``. What makes this process a node, and what keeps an ended one from writing, is in `postgres_node`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from paceline.clock import passed_ms
from paceline.model.errors import ConflictError, UnavailableError
from paceline.model.ids import first_of
from paceline.model.messages import (
    AccountNote,
    Added,
    Entry,
    FlowKey,
    HandedOver,
    Mark,
    NewMessage,
    Revision,
    Settlement,
)
from paceline.model.states import ENDED
from paceline.stores import postgres_find
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
from paceline.stores.calls import Add, HandOver, Kind, Moment, Revise, Settle
from paceline.stores.nodes import Handed
from paceline.stores.postgres_address import parse_address
from paceline.stores.postgres_migrate import Steps, bring_up_to_date
from paceline.stores.postgres_node import LEASE_S, Membership
from paceline.stores.postgres_nodes import PostgresNodes
from paceline.stores.postgres_reader import Readers, flow_states, in_one_moment
from paceline.stores.postgres_session import (
    QUICK,
    SEARCHING,
    WRITING,
    Session,
    check_server,
    columns,
    connect,
    translate,
)
from paceline.stores.postgres_writer import Writer

T = TypeVar("T")

_QUICK_READERS: Final = 3
_QUICK_SECONDS: Final = 30.0
_SEARCHERS: Final = 2
_SEARCH_SECONDS: Final = 10.0
_TOO_SLOW: Final = "; narrow it by state, batch, campaign, recipient or time"
_EXPORT_PAGE: Final = 500
_ROW_CHARACTERS: Final = 8_192
"""Content of so many characters more weighs as much as one message more: then 40 MB make a commit."""
_ALL: Final = 2**62


class PostgresStore:
    """A `Store` in one schema of a PostgreSQL database. `open` binds it to the running event loop."""

    def __init__(self, url: str, role: str = "all", lease_s: float = LEASE_S, steps: Steps = None) -> None:
        """Name the database; a node of the role "api" sends nothing, one that is "alone" shares with nobody.

        Others may follow `lease_s` after it fell silent. `steps` are those of the schema that it knows: None for ours.

        Raises:
            InvalidError: the URL is none of a PostgreSQL database.
        """
        self.address = parse_address(url)
        self.nodes = PostgresNodes(self)
        self._role, self._lease_s, self._steps = role, lease_s, steps
        self._writer_or_none: Writer | None = None
        self._quick: Readers | None = None
        self._slow: Readers | None = None
        self._version = ""

    async def open(self, now: int) -> None:
        """Look at the server, bring the schema up to date, become a node of it."""
        await self._join()
        name = f"paceline {self.nodes.id}"
        self._quick = Readers(self.address, _QUICK_READERS, name, QUICK, _QUICK_SECONDS)
        self._slow = Readers(self.address, _SEARCHERS, name, SEARCHING, _SEARCH_SECONDS, _TOO_SLOW)

    async def _join(self) -> None:
        member = Membership(self.address, self._role, self._lease_s)
        reconnect = partial(self._connect, member.writer_name)
        session = await reconnect()
        try:
            program = await bring_up_to_date(session, self.address, self._steps, exact=self._role == "alone")
            begun = passed_ms()
            await member.join(session, program)
            await session.value("unlock", self.address.schema)
        except Exception as error:
            await session.close()
            raise translate(error, self.address.name) from error
        except BaseException:
            session.connection.terminate()
            raise
        self._writer_or_none = Writer(self.address.name, session, member, reconnect, self.nodes.told)
        self.nodes.joined(member, begun)

    def ended(self, member: Membership) -> None:
        """The node that was `member` has been ended by another one."""
        if self._writer_or_none is not None:
            self._writer_or_none.ended()

    async def rejoin(self) -> None:
        """See `NodeStore.rejoin`."""
        await self.nodes.left()
        if self._writer_or_none is not None:
            await self._writer_or_none.stop()
        await self._join()

    async def close(self) -> None:
        """Finish what was asked for, give everything back and let the schema go."""
        readers = [pool for pool in (self._quick, self._slow) if pool is not None]
        self._quick = self._slow = None
        for pool in readers:
            await pool.close()
        if self._writer_or_none is not None:
            await self._writer_or_none.stop()
            self._writer_or_none = None
            self.nodes.gone()
        await self.nodes.left()

    # Writes

    def add(
        self, rows: Sequence[NewMessage], flows: Sequence[FlowKey], now: int
    ) -> asyncio.Future[list[Added]]:
        """See `Store.add`."""
        weight = sum(1 + len(row.content) // _ROW_CHARACTERS for row in rows)
        return self._writer.submit(Kind.ADD, Add(rows, flows), weight)

    async def hand_over(self, marks: Sequence[Mark], now: int) -> list[HandedOver]:
        """See `Store.hand_over`."""
        answer: Handed = await self._writer.submit(Kind.HAND_OVER, HandOver(marks), len(marks))
        return answer.handed

    async def settle(
        self, settlements: Sequence[Settlement], notes: Sequence[AccountNote],
        follow_ups: Sequence[NewMessage], flows: Sequence[FlowKey], now: int,
    ) -> list[int]:  # fmt: skip
        """See `Store.settle`."""
        work = Settle(settlements, notes, follow_ups, flows)
        rows = len(settlements) + len(notes) + len(follow_ups)
        answer: list[int] = await self._writer.submit(Kind.SETTLE, work, rows)
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
        work = Revise(revisions, flows, now)
        answer: list[int] = await self._writer.submit(Kind.REVISE, work, len(revisions))
        return answer

    async def put(self, documents: Sequence[Document], shift_waits: int = 0) -> None:
        """See `Store.put`."""

        async def work(session: Session) -> int:
            revision: int = await session.value("next_revision") if documents else 0
            if documents:
                await session.run("put", *columns(documents, 5), revision)
            if shift_waits:
                await session.run("shift_waits", shift_waits)
            return revision

        self.nodes.wrote(await self.submit(Kind.OTHER, work, len(documents)))

    async def remove(self, kind: str, tenant: str, name: str) -> bool:
        """See `Store.remove`."""

        async def work(session: Session) -> tuple[int, int]:
            revision = await session.value("next_revision")
            return await session.value("remove", kind, tenant, name, revision), revision

        gone: int
        gone, revision = await self.submit(Kind.OTHER, work, 1)
        self.nodes.wrote(revision)
        return gone > 0

    async def clean(self, wanted: Filter, finished_before: int | None, keep: int | None, most: int) -> int:
        """See `Store.clean`. The search runs beside the writer, which then looks at each message again."""
        states = tuple(sorted(ENDED.intersection(wanted.state) if wanted.state else ENDED))
        if not states:
            return 0
        ended = msgspec.structs.replace(wanted, state=tuple(map(int, states)))
        if keep is not None:
            most = min(most, sum((await self.count(ended)).values()) - keep)
        if most <= 0:
            return 0
        find = partial(postgres_find.find_ids, wanted=ended, before=None, limit=most, oldest=True,
                       finished_before=finished_before)  # fmt: skip
        ids = await self._search(find)
        if not ids:
            return 0

        async def work(session: Session) -> int:
            gone: int = await session.value("clean", ids, session.slot)
            await session.value("clean_tallies")
            return gone

        cleaned: int = await self.submit(Kind.OTHER, work, len(ids))
        return cleaned

    async def clean_journal(self, finished_before: int, most: int) -> int:
        """See `Store.clean_journal`. A message that is still kept takes its last line's ending over."""
        first = first_of(max(0, finished_before))
        lines = await self._search(lambda session: session.rows("old_lines", finished_before, most, first))
        ids, numbers = [line[0] for line in lines], [line[1] for line in lines]
        cleaned: int = await self.submit(
            Kind.OTHER,
            lambda session: session.value("clean_journal", ids, numbers, finished_before),
            len(lines),
        )
        return cleaned

    # Reads

    async def flows(self) -> list[FlowState]:
        """See `Store.flows`."""
        return flow_states(await self.rows("flows"))

    async def entries(self, requests: Sequence[FlowAfter]) -> list[FlowPart]:
        """See `Store.entries`."""
        parts = [FlowPart(request.flow, [], more=False) for request in requests]
        for place, *entry in await self.rows("entries", *columns(requests, 4)):
            parts[place - 1].entries.append(Entry(*entry))
        for part, request in zip(parts, requests, strict=True):
            if len(part.entries) > request.limit:  # one more than asked for: that it is there is all it tells
                part.entries.pop()
                part.more = True
        return parts

    async def processing(self) -> list[HandedOver]:
        """See `Store.processing`."""
        return [HandedOver(*row) for row in await self.rows("processing")]

    async def occupancy(self, since: int, accounts: Sequence[tuple[str, int]] | None) -> list[Occupancy]:
        """See `Store.occupancy`. Account by account, oldest first."""

        async def read(session: Session) -> list[Sequence[Any]]:
            asked = accounts
            if asked is None:
                asked = [(account, _ALL) for (account,) in await session.rows("occupants")]
            names, most = [name for name, _ in asked], [newest for _, newest in asked]
            return await session.rows("occupancy_of", names, most, since)

        return [Occupancy(*row) for row in await self._read(partial(in_one_moment, act=read))]

    async def get(self, ids: Sequence[int]) -> list[StoredMessage]:
        """See `Store.get`."""
        return [StoredMessage(*row) for row in await self.rows("get", list(ids))]

    async def find(self, wanted: Filter, before: int | None, limit: int) -> list[StoredMessage]:
        """See `Store.find`."""

        async def read(session: Session) -> list[Sequence[Any]]:
            return await session.rows("get", await postgres_find.find_ids(session, wanted, before, limit))

        return [StoredMessage(*row) for row in await self._search(partial(in_one_moment, act=read))]

    async def count(self, wanted: Filter) -> dict[int, int]:
        """See `Store.count`."""
        return await self._search(lambda session: postgres_find.count(session, wanted))

    async def ahead(self, flow: int, turn: int, id: int) -> int:  # noqa: A002 - the field's own name
        """See `Store.ahead`."""
        ahead: int = await self._search(lambda session: session.value("ahead", flow, turn, id))
        return ahead

    async def attempts(self, ids: Sequence[int]) -> list[Attempt]:
        """See `Store.attempts`."""
        return [Attempt(*row) for row in await self.rows("attempts", list(ids))]

    async def tallies(self) -> list[Tally]:
        """See `Store.tallies`."""
        return [Tally(*row) for row in await self.rows("tallies")]

    async def daily(self, days: Sequence[int]) -> list[Daily]:
        """See `Store.daily`."""
        return [Daily(*row) for row in await self.rows("daily", list(days))]

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `Store.flow_keys`."""
        return {number: FlowKey(*key) for number, *key in await self.rows("flow_keys")}

    async def notes(self) -> list[AccountNote]:
        """See `Store.notes`."""
        return [AccountNote(*row) for row in await self.rows("notes")]

    async def documents(self, kind: str) -> list[Document]:
        """See `Store.documents`."""
        return [Document(*row) for row in await self.rows("documents", kind)]

    async def greatest_id(self) -> int:
        """See `Store.greatest_id`."""
        greatest: int = await self._read(lambda session: session.value("greatest_id"))
        return greatest

    async def copy(self, target: Path, now: int) -> CopyFacts:
        """See `Store.copy`: refused, since a server has its own way of being copied."""
        raise ConflictError(
            "a store in PostgreSQL is copied with pg_dump, or with the server's own back-ups; put on `paceline hold` "
            "before a restored one is used"
        )

    async def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        writer = self._writer
        figures = writer.figures
        facts: dict[str, Any] = {
            "engine": "postgresql",
            "version": self._version,
            "address": self.address.name,
            "commits": figures.commits,
            "commit_ms": round(figures.commit_ms, 3),
            "failures": figures.failures,
            "reconnects": figures.reconnects,
            "looked_up": figures.looked_up,
            "pending": writer.waiting,
        }
        if writer.away is not None:
            return facts | {"away": str(writer.away)}
        return facts | {"file_bytes": await self._read(lambda session: session.value("database_bytes"))}

    async def export(self, wanted: Filter) -> AsyncIterator[list[StoredMessage]]:
        """See `Store.export`. Each page is its own read, so that a long export holds back no clean-up."""
        before: int | None = None
        while page := await self.find(wanted, before, _EXPORT_PAGE):
            yield page
            before = page[-1].id

    async def _connect(self, application: str) -> Session:
        session = await connect(self.address, application, WRITING)
        try:
            self._version = await check_server(session, self.address)
        except Exception as error:
            await session.close()
            raise translate(error, self.address.name) from error
        return session

    @property
    def _writer(self) -> Writer:
        if self._writer_or_none is None:
            raise UnavailableError("the store is not open")
        return self._writer_or_none

    async def submit(self, kind: Kind, work: Any, rows: int) -> Any:
        """Have something written, in a commit of this node."""
        return await self._writer.submit(kind, work, rows)

    async def rows(self, name: str, *values: Any) -> list[Sequence[Any]]:
        """What a quick read answers."""
        return await self._read(lambda session: session.rows(name, *values))

    async def _read(self, act: Callable[[Session], Awaitable[T]]) -> T:
        if self._quick is None:
            raise UnavailableError("the store is not open")
        return await self._quick.read(act)

    async def _search(self, act: Callable[[Session], Awaitable[T]]) -> T:
        if self._slow is None:
            raise UnavailableError("the store is not open")
        return await self._slow.read(act)
