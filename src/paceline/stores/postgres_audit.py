"""Reads a PostgreSQL store for the audit: beside a running node or without one. Never writes to it."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from paceline.model.errors import NotFoundError, SchemaError, UnavailableError
from paceline.model.journal import Counted, DayFigures, Leftover, Sent, Standing
from paceline.model.messages import FlowKey
from paceline.stores.base import Attempt, Document
from paceline.stores.postgres_address import parse_address
from paceline.stores.postgres_migrate import newest_version, version_of
from paceline.stores.postgres_session import SEARCHING, Session, connect, translate

T = TypeVar("T")

PAGE = 2000
_PAGE_S = 3600.0
"""The first page of a sorted table may take its time."""


class PostgresJournalReader:
    """A `JournalReader` of one schema."""

    def __init__(self, url: str) -> None:
        """Name the store.

        Raises:
            InvalidError: the URL is none of a PostgreSQL database.
        """
        self.address = parse_address(url)
        self._session: Session | None = None

    @property
    def name(self) -> str:
        """See `JournalReader.name`."""
        return self.address.name

    async def open(self) -> None:
        """See `JournalReader.open`."""
        self._session = await connect(self.address, "paceline audit", SEARCHING, _PAGE_S)
        try:
            await self._check_version()
        except BaseException:
            await self.close()
            raise

    async def _check_version(self) -> None:
        version, newest = await self._do(version_of(self._open, self.address)), newest_version()
        if not version:
            raise NotFoundError(f"there is no store at {self.name}; `paceline up` makes one")
        if version < newest:
            raise SchemaError(
                f"{self.name} was written by an older Paceline (schema {version}, this one knows {newest}); "
                "use that version, or let `paceline up` bring it up to date first"
            )

    async def close(self) -> None:
        """See `JournalReader.close`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[None]:
        """See `JournalReader.moment`."""
        transaction: Any = self._open.connection.transaction(isolation="repeatable_read", readonly=True)
        await self._do(transaction.start())
        try:
            yield
        finally:
            if not self._open.closed:
                await self._do(transaction.rollback())

    async def sizes(self) -> dict[str, int]:
        """See `JournalReader.sizes`."""
        return dict(await self._do(self._open.row("audit_sizes")))

    async def documents(self, kind: str) -> list[Document]:
        """See `JournalReader.documents`."""
        return [Document(*row) for row in await self._do(self._open.rows("documents", kind))]

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `JournalReader.flow_keys`."""
        return {number: FlowKey(*key) for number, *key in await self._do(self._open.rows("flow_keys"))}

    async def told_to_wait(self) -> list[str]:
        """See `JournalReader.told_to_wait`."""
        return [account for (account,) in await self._do(self._open.rows("audit_told_to_wait"))]

    def sends(self, since: int, account: str | None = None) -> AsyncIterator[list[Sent]]:
        """See `JournalReader.sends`."""
        if account is not None:
            return self._pages("audit_sends_of_one", Sent, since, account)
        return self._pages("audit_sends", Sent, since)

    def sends_in_time(self, since: int) -> AsyncIterator[list[Sent]]:
        """See `JournalReader.sends_in_time`."""
        return self._pages("audit_sends_in_time", Sent, since)

    def standings(self, first: int) -> AsyncIterator[list[Standing]]:
        """See `JournalReader.standings`."""
        return self._pages("audit_standings", Standing, first)

    def lines(self, first: int) -> AsyncIterator[list[Attempt]]:
        """See `JournalReader.lines`."""
        return self._pages("audit_lines", Attempt, first)

    def counts(self) -> AsyncIterator[list[Counted]]:
        """See `JournalReader.counts`."""
        return self._pages("audit_counts", Counted)

    def days(self) -> AsyncIterator[list[DayFigures]]:
        """See `JournalReader.days`."""
        return self._pages("audit_days", DayFigures)

    async def leftovers(self) -> list[Leftover]:
        """See `JournalReader.leftovers`."""
        return [Leftover(*row) for row in await self._do(self._open.rows("audit_leftovers"))]

    async def integrity(self) -> list[str]:
        """See `JournalReader.integrity`: what the server has noticed by itself; it is not asked to read all pages."""
        return [what for (what,) in await self._do(self._open.rows("audit_integrity", self.address.schema))]

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise UnavailableError("the store is not open")
        return self._session

    async def _do(self, act: Awaitable[T]) -> T:
        try:
            return await act
        except Exception as error:
            raise translate(error, self.name) from error

    async def _pages(self, name: str, kind: type[T], *values: Any) -> AsyncIterator[list[T]]:
        """Through a cursor of the moment's transaction, so that the server holds the rows and not we."""
        session = self._open
        cursor: Any = await self._do(session.connection.cursor(session.sql(name), *values))
        while page := await self._do(cursor.fetch(PAGE)):
            yield [kind(*row) for row in page]
