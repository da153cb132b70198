"""A store of which everything is known: the `Store` protocol over tables in memory, with commits that take time.

It keeps to what the embedded store does: calls of one step of the loop go to the writer together; what is asked
for while a commit runs shares the next one; a commit runs its kinds in a fixed order and is durable as a whole
or not at all; the answers come later than that. Reads see what is durable at some moment between question and
answer and never wait for the writer. The suite of all stores runs on it as well.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from paceline.model.errors import ConflictError, UnavailableError
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
from paceline.stores.calls import Kind
from tests.simulation import reads
from tests.simulation.tables import Tables

T = TypeVar("T")
_PAGE = 500


class Call:
    """One write that somebody waits for."""

    __slots__ = ("answer", "args", "future", "kind", "rows", "write")

    def __init__(
        self, kind: Kind, write: Callable[[Tables], Any], rows: int, future: asyncio.Future[Any], args: Any
    ) -> None:
        """`args` are for who watches."""
        self.kind, self.write, self.rows, self.future, self.args = kind, write, rows, future, args
        self.answer: Any = None


class Disk(Protocol):
    """Where commits and reads take their time, and where they may fail."""

    def commit(
        self, take: Callable[[], None], durable: Callable[[], None], answer: Callable[[], None]
    ) -> None:
        """Call `take` when the writer wakes up, `durable` at the moment its commit is on disk, later `answer`."""

    def read(self, look: Callable[[], None], answer: Callable[[], None], slow: bool) -> None:
        """Call `look` at the moment the read sees the disk, later `answer`."""

    def trouble(self, kinds: Sequence[Kind]) -> UnavailableError | None:
        """Why a commit of these kinds fails at this moment."""

    def committed(self, calls: Sequence[Call]) -> None:
        """These calls are durable; each has its answer."""


class PromptDisk:
    """Every commit and read is done in the next step of the running loop."""

    def commit(
        self, take: Callable[[], None], durable: Callable[[], None], answer: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        # A thread does not wake up within the step that wakes it: what this step still asks for is in time.
        loop.call_soon(loop.call_soon, take)
        loop.call_soon(loop.call_soon, durable)
        loop.call_soon(loop.call_soon, answer)

    def read(self, look: Callable[[], None], answer: Callable[[], None], slow: bool) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(look)
        loop.call_soon(answer)

    def trouble(self, kinds: Sequence[Kind]) -> UnavailableError | None:
        return None

    def committed(self, calls: Sequence[Call]) -> None:
        pass


class SimulatedStore:
    """One process's way to the tables."""

    nodes = None

    def __init__(self, tables: Tables, disk: Disk | None = None, most_rows: int = 5000) -> None:
        """A commit takes calls until it has `most_rows` rows."""
        self.tables = tables
        self._disk: Disk = disk or PromptDisk()
        self._most_rows = most_rows
        self._gathered: list[Call] = []
        self._pending: list[Call] = []
        self._busy = False
        self._open = False
        self._commits = 0
        self._idle: asyncio.Future[None] | None = None

    async def open(self, now: int) -> None:
        """See `Store.open`."""
        self._open = True

    async def close(self) -> None:
        """See `Store.close`."""
        self._open = False
        self._pass_on()
        if self._busy:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    # -- the writer

    def _submit(
        self, kind: Kind, rows: int, write: Callable[[Tables], Any], *args: Any
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._open:
            future.set_exception(UnavailableError("the store is closed"))
            return future
        if not self._gathered:
            loop.call_soon(self._pass_on)
        self._gathered.append(Call(kind, write, rows, future, args))
        return future

    def _pass_on(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._pending += gathered
        if self._pending and not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        calls: list[Call] = []
        self._disk.commit(
            partial(self._take, calls), partial(self._durable, calls), partial(self._answered, calls)
        )

    def _take(self, calls: list[Call]) -> None:
        taken, rows = 0, 0
        for taken, call in enumerate(self._pending):
            rows += call.rows
            if taken and rows > self._most_rows:
                break
        else:
            taken = len(self._pending)
        calls += self._pending[:taken]
        del self._pending[:taken]

    def _durable(self, calls: list[Call]) -> None:
        self._serve(calls)
        self._disk.committed([call for call in calls if not isinstance(call.answer, Exception)])
        self._busy = False
        if self._pending:
            self._begin()  # the writer does not wait until the loop has heard of it

    def _answered(self, calls: list[Call]) -> None:
        for call in calls:
            if call.future.done():
                continue
            if isinstance(call.answer, Exception):
                call.future.set_exception(call.answer)
            else:
                call.future.set_result(call.answer)
        if not self._busy and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _serve(self, calls: list[Call]) -> None:
        """All in one transaction, or each in its own where one breaks a rule; see `sqlite_writer`."""
        trouble = self._disk.trouble([call.kind for call in calls])
        if trouble is None:
            self._commits += 1
            self._run(calls)
            return
        small = [call for call in calls if call.kind is not Kind.ADD]
        if small and len(small) < len(calls) and self._disk.trouble([call.kind for call in small]) is None:
            self._run(small)
        else:
            small = []
        for call in calls:
            if call not in small:
                call.answer = trouble

    def _run(self, calls: list[Call]) -> None:
        added = [row for call in calls if call.kind is Kind.ADD for row in call.args[0]]
        alone = self.tables.conflict(row for row in added if row.idempotency_key is None)
        for call in calls if alone else sorted(calls, key=lambda call: call.kind):
            try:
                call.answer = call.write(self.tables)
            except ConflictError as error:
                call.answer = error

    # -- writes

    def add(
        self, rows: Sequence[NewMessage], flows: Sequence[FlowKey], now: int
    ) -> asyncio.Future[list[Added]]:
        """See `Store.add`."""
        return self._submit(Kind.ADD, len(rows), lambda t: t.add(rows, flows), rows)

    async def hand_over(self, marks: Sequence[Mark], now: int) -> list[HandedOver]:
        """See `Store.hand_over`."""
        answer: list[HandedOver] = await self._submit(
            Kind.HAND_OVER, len(marks), lambda t: t.hand_over(marks), marks
        )
        return answer

    async def settle(
        self, settlements: Sequence[Settlement], notes: Sequence[AccountNote],
        follow_ups: Sequence[NewMessage], flows: Sequence[FlowKey], now: int,
    ) -> list[int]:  # fmt: skip
        """See `Store.settle`."""

        def write(tables: Tables) -> list[int]:
            stale = tables.settle(settlements, notes)
            tables.add(follow_ups, flows)
            return stale

        answer: list[int] = await self._submit(Kind.SETTLE, len(settlements), write, settlements, notes)
        return answer

    async def promote(self, now: int, most: int, ahead: Ahead = level) -> Promoted:
        """See `Store.promote`."""
        answer: Promoted = await self._submit(
            Kind.PROMOTE, most, lambda t: t.promote(now, most, ahead()), now
        )
        return answer

    async def expire(self, now: int, most: int, ahead: Ahead = level) -> Expired:
        """See `Store.expire`."""
        answer: Expired = await self._submit(Kind.EXPIRE, most, lambda t: t.expire(now, most, ahead()), now)
        return answer

    async def revise(
        self, revisions: Sequence[Revision], now: int, flows: Sequence[FlowKey] = ()
    ) -> list[int]:
        """See `Store.revise`."""
        answer: list[int] = await self._submit(
            Kind.REVISE, len(revisions), lambda t: t.revise(revisions, now, flows), revisions
        )
        return answer

    async def put(self, documents: Sequence[Document], shift_waits: int = 0) -> None:
        """See `Store.put`."""
        await self._submit(Kind.OTHER, len(documents), lambda t: t.put(documents, shift_waits))

    async def remove(self, kind: str, tenant: str, name: str) -> bool:
        """See `Store.remove`."""
        removed: int = await self._submit(Kind.OTHER, 1, lambda t: t.remove(kind, tenant, name))
        return removed > 0

    async def clean(self, wanted: Filter, finished_before: int | None, keep: int | None, most: int) -> int:
        """See `Store.clean`."""
        ids = await self._read(lambda t: reads.cleanable(t, wanted, finished_before, keep, most), slow=True)
        if not ids:
            return 0
        answer: int = await self._submit(Kind.OTHER, len(ids), lambda t: t.clean(ids))
        return answer

    async def clean_journal(self, finished_before: int, most: int) -> int:
        """See `Store.clean_journal`."""
        lines = await self._read(lambda t: reads.old_lines(t, finished_before, most), slow=True)
        answer: int = await self._submit(
            Kind.OTHER, len(lines), lambda t: t.clean_journal(lines, finished_before)
        )
        return answer

    # -- reads

    async def _read(self, look: Callable[[Tables], T], *, slow: bool = False) -> T:
        if not self._open:
            raise UnavailableError("the store is not open")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        seen: list[T] = []

        def answer() -> None:
            if not future.done():
                future.set_result(seen[0])

        self._disk.read(lambda: seen.append(look(self.tables)), answer, slow)
        return await future

    async def flows(self) -> list[FlowState]:
        """See `Store.flows`."""
        return await self._read(reads.flows)

    async def entries(self, requests: Sequence[FlowAfter]) -> list[FlowPart]:
        """See `Store.entries`."""
        return await self._read(lambda t: reads.entries(t, requests))

    async def processing(self) -> list[HandedOver]:
        """See `Store.processing`."""
        return await self._read(reads.processing)

    async def occupancy(self, since: int, accounts: Sequence[tuple[str, int]] | None) -> list[Occupancy]:
        """See `Store.occupancy`."""
        return await self._read(lambda t: reads.occupancy(t, since, accounts))

    async def get(self, ids: Sequence[int]) -> list[StoredMessage]:
        """See `Store.get`."""
        return await self._read(lambda t: reads.get(t, ids))

    async def find(self, wanted: Filter, before: int | None, limit: int) -> list[StoredMessage]:
        """See `Store.find`."""

        def look(tables: Tables) -> list[StoredMessage]:
            found = zip(range(limit), reads.matching(tables, wanted, before), strict=False)
            return [reads.stored(tables, kept) for _, kept in found]

        return await self._read(look, slow=True)

    async def count(self, wanted: Filter) -> dict[int, int]:
        """See `Store.count`."""

        def look(tables: Tables) -> dict[int, int]:
            counts: dict[int, int] = {}
            for kept in reads.matching(tables, wanted):
                counts[kept.state] = counts.get(kept.state, 0) + 1
            return counts

        return await self._read(look, slow=True)

    async def ahead(self, flow: int, turn: int, id: int) -> int:
        """See `Store.ahead`."""
        return await self._read(lambda t: sum(p < (turn, id) for p in t.pending.get(flow, ())), slow=True)

    async def attempts(self, ids: Sequence[int]) -> list[Attempt]:
        """See `Store.attempts`."""
        return await self._read(lambda t: reads.attempts(t, ids))

    async def tallies(self) -> list[Tally]:
        """See `Store.tallies`."""
        return await self._read(reads.tallies)

    async def daily(self, days: Sequence[int]) -> list[Daily]:
        """See `Store.daily`."""
        return await self._read(lambda t: reads.daily(t, days))

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `Store.flow_keys`."""
        return await self._read(lambda t: dict(t.flows))

    async def notes(self) -> list[AccountNote]:
        """See `Store.notes`."""
        return await self._read(reads.notes)

    async def documents(self, kind: str) -> list[Document]:
        """See `Store.documents`."""
        return await self._read(lambda t: [d for key, d in sorted(t.documents.items()) if key[0] == kind])

    async def greatest_id(self) -> int:
        """See `Store.greatest_id`."""
        return await self._read(lambda t: t.greatest)

    async def copy(self, target: Path, now: int) -> CopyFacts:
        """See `Store.copy`: there is no file here to copy."""
        raise UnavailableError("a simulated store has no file")

    async def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        waiting = len(self._gathered) + len(self._pending)
        return {
            "engine": "simulated", "version": "1", "file": None, "file_bytes": 1, "wal_bytes": 0, "free_bytes": 1,
            "commits": self._commits, "commit_ms": 0.0, "checkpoint_ms": 0.0, "failures": 0, "pending": waiting,
        }  # fmt: skip

    async def export(self, wanted: Filter) -> AsyncIterator[list[StoredMessage]]:
        """See `Store.export`."""
        before: int | None = None
        while page := await self.find(wanted, before, _PAGE):
            yield page
            before = page[-1].id
