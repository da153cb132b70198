"""Reads a SQLite store for the audit: beside a running server, on a stopped one, on a copy. Never writes to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import apsw
import msgspec

from paceline.model.errors import NotFoundError, SchemaError, UnavailableError
from paceline.model.journal import Counted, DayFigures, Leftover, Sent, Standing
from paceline.model.messages import FlowKey
from paceline.stores.base import Attempt, Document
from paceline.stores.sqlite_migrate import APPLICATION_ID
from paceline.stores.sqlite_schema import Session, translate
from paceline.stores.statements import load_migrations

T = TypeVar("T")

PAGE = 2000
_CACHE_KIB = 32 * 1024
_BUSY_MS = 5000


class SqliteJournalReader:
    """A `JournalReader` of one file."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path
        self._session: Session | None = None
        self._frozen: tuple[int, int] | None = None  # time and size of a file that nobody seems to write to

    @property
    def name(self) -> str:
        """See `JournalReader.name`."""
        return str(self.path)

    async def open(self) -> None:
        """See `JournalReader.open`."""
        if not self.path.is_file():
            kind = "is a folder, not a database file" if self.path.is_dir() else "is not there"
            raise NotFoundError(f"{self.path} {kind}; name a data folder or a database file")
        try:
            connection = self._connect()
        except apsw.NotADBError:
            raise SchemaError(f"{self.path} is not a SQLite database; name another file") from None
        except apsw.Error as error:
            raise self._explained(error) from error
        self._session = Session(connection)

    async def close(self) -> None:
        """See `JournalReader.close`."""
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[None]:
        """See `JournalReader.moment`."""
        connection = self._open.connection
        self._do(lambda: connection.execute("BEGIN"))
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        self._check_unchanged()

    async def sizes(self) -> dict[str, int]:
        """See `JournalReader.sizes`."""
        found = self._value("audit_sizes", dict[str, int])
        return {**found, "bytes": self.path.stat().st_size}

    async def documents(self, kind: str) -> list[Document]:
        """See `JournalReader.documents`."""
        return self._value("documents", list[Document], kind)

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `JournalReader.flow_keys`."""
        return dict(self._value("flow_keys", list[tuple[int, FlowKey]]))

    async def told_to_wait(self) -> list[str]:
        """See `JournalReader.told_to_wait`."""
        return self._value("audit_told_to_wait", list[str])

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
        return self._value("audit_leftovers", list[Leftover])

    async def integrity(self) -> list[str]:
        """See `JournalReader.integrity`."""
        connection = self._open.connection
        found = self._do(lambda: [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")])
        return [] if found == ["ok"] else found

    # -- inside

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise UnavailableError("the store is not open")
        return self._session

    def _connect(self) -> apsw.Connection:
        # With a log beside it somebody may be writing: SQLite's own protocol keeps reader and writer apart. Without
        # one nobody is, and the file is read as it lies, since opening it in the ordinary way would leave files.
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists():
            try:
                return self._checked(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY))
            except (apsw.CantOpenError, apsw.ReadOnlyError):
                if log.stat().st_size:
                    raise
        self._frozen = self._stamp()
        name = f"file:{quote(str(self.path.absolute()))}?immutable=1"
        return self._checked(apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI))

    def _checked(self, connection: apsw.Connection) -> apsw.Connection:
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("query_only", True)
            connection.pragma("cache_size", -_CACHE_KIB)
            self._check_ours(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_ours(self, connection: apsw.Connection) -> None:
        version = connection.pragma("user_version")
        if connection.pragma("application_id") != APPLICATION_ID:
            empty = not connection.execute("SELECT count(*) FROM sqlite_schema").get
            what = "is an empty database" if empty else "is a database of another program"
            raise SchemaError(f"{self.path} {what}; name a file that Paceline wrote")
        newest = len(load_migrations("sqlite"))
        if version > newest:
            raise SchemaError(
                f"{self.path} was written by a newer Paceline (schema {version}, this one knows {newest}); "
                "use that version"
            )
        if version < newest:
            raise SchemaError(
                f"{self.path} was written by an older Paceline (schema {version}, this one knows {newest}); "
                "use that version, or let `paceline up` bring it up to date first"
            )

    def _explained(self, error: apsw.Error) -> Exception:
        if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError)):
            return UnavailableError(
                f"{self.path} cannot be opened ({error}). If only its folder cannot be written to, copy the file "
                "and its -wal file to another folder: what is in the log is read through an index beside it"
            )
        return translate(error)

    def _stamp(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_mtime_ns, status.st_size

    def _check_unchanged(self) -> None:
        if self._frozen is not None and self._frozen != self._stamp():
            raise UnavailableError(f"{self.path} was changed while it was being read; run it again")

    def _do(self, act: Any) -> Any:
        try:
            return act()
        except apsw.Error as error:
            self._check_unchanged()
            raise self._explained(error) from error

    def _value(self, name: str, kind: type[T], *values: Any) -> T:
        found: T = self._do(lambda: msgspec.json.decode(self._open.value(name, *values), type=kind))
        return found

    async def _pages(self, name: str, kind: type[T], *values: Any) -> AsyncIterator[list[T]]:
        rows: Iterator[tuple[Any, ...]] = self._do(lambda: self._open.rows(name, *values))
        while True:
            page: list[T] = self._do(lambda: [kind(*row) for row in islice(rows, PAGE)])
            if not page:
                return
            yield page
