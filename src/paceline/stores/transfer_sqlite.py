"""A SQLite store as a whole, to be moved: see `transfer`."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from paceline.model.errors import SchemaError, UnavailableError
from paceline.stores.base import Document
from paceline.stores.sqlite_copy import flush
from paceline.stores.sqlite_migrate import check_ours, newest_version, version_of
from paceline.stores.sqlite_schema import Ownership, open_writer, translate
from paceline.stores.statements import load_statements
from paceline.stores.transfer import PAGE, PAGE_BYTES, TABLES, Row


class SqliteMoving:
    """A `Moving` of one file."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path
        self._ownership: Ownership | None = None
        self._connection: apsw.Connection | None = None

    @property
    def name(self) -> str:
        """See `Moving.name`."""
        return str(self.path)

    @property
    def keeps_nul(self) -> bool:
        """See `Moving.keeps_nul`."""
        return True

    async def exists(self) -> bool:
        """See `Moving.exists`."""
        return self.path.is_file() and self.path.stat().st_size > 0

    async def open(self, now: int) -> None:
        """See `Moving.open`. A file that is there has to be of this version, so that nothing is migrated by the way."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UnavailableError(f"{self.path.parent} cannot be made: {error.strerror}") from None
        self._ownership = Ownership(self.path)
        try:
            if await self.exists():
                self._check_version()
            self._connection = open_writer(self.path).connection
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Moving.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None

    async def installation(self) -> list[Document]:
        """See `Moving.installation`."""
        return [Document(*row) for row in self._rows("installation")]

    async def put(self, document: Document) -> None:
        """See `Moving.put`."""
        self._do(lambda: self._open.pragma("synchronous", "full"))
        row = (document.kind, document.tenant, document.name, document.body, document.updated_at)
        self._rows("put_document", *row)

    async def is_empty(self) -> bool:
        """See `Moving.is_empty`."""
        return bool(self._value("is_empty"))

    async def empty(self) -> None:
        """See `Moving.empty`."""
        known = await self.installation()
        self._do(lambda: [self._open.execute(f"DELETE FROM {table}") for table in TABLES])  # noqa: S608 - names of ours
        for document in known:
            await self.put(document)

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[None]:
        """See `Moving.moment`."""
        self._do(lambda: self._open.execute("BEGIN"))
        try:
            yield
        finally:
            if self._open.in_transaction:
                self._open.execute("ROLLBACK")

    async def sizes(self) -> dict[str, int]:
        """See `Moving.sizes`."""
        return dict(zip(TABLES, self._rows("sizes")[0], strict=True))

    async def read(self, table: str) -> AsyncIterator[list[Row]]:
        """See `Moving.read`."""
        rows: Iterator[Row] = self._do(lambda: iter(self._open.execute(_sql(f"read_{table}"))))
        page: list[Row] = []
        size = 0
        while (row := self._do(lambda: next(rows, None))) is not None:
            page.append(row)
            size += sum(len(value) for value in row if isinstance(value, str)) if table == "message" else 0
            if len(page) >= PAGE or size >= PAGE_BYTES:
                yield page
                page, size = [], 0
        if page:
            yield page

    async def write(self, table: str, rows: Sequence[Row]) -> None:
        """See `Moving.write`."""

        def work() -> None:
            self._open.pragma("synchronous", "normal")  # nothing counts before `flush`
            with self._open:
                self._open.executemany(_sql(f"write_{table}"), rows)

        self._do(work)

    async def greatest_id(self) -> int:
        """See `Moving.greatest_id`."""
        return int(self._value("greatest_id"))

    async def keep_greatest_id(self, number: int) -> None:
        """See `Moving.keep_greatest_id`."""

        def work() -> None:
            with self._open:
                self._open.execute(_sql("forget_greatest_id"))
                self._open.execute(_sql("keep_greatest_id"), (number,))

        self._do(work)

    async def flush(self) -> None:
        """See `Moving.flush`."""

        def work() -> None:
            self._open.pragma("synchronous", "full")
            self._open.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            flush(self.path)
            flush(self.path.parent)

        self._do(work)

    def _check_version(self) -> None:
        connection = self._do(lambda: apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE))
        try:
            self._do(lambda: check_ours(connection, self.path))
            version, newest = self._do(lambda: version_of(connection)), newest_version()
        finally:
            connection.close()
        if 0 < version < newest:
            raise SchemaError(
                f"{self.path} has schema {version}, and {newest} is needed: say `paceline store migrate` first"
            )

    @property
    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise UnavailableError(f"{self.path} is not open")
        return self._connection

    def _rows(self, name: str, *values: Any) -> list[Any]:
        found: list[Any] = self._do(lambda: self._open.execute(_sql(name), values).fetchall())
        return found

    def _value(self, name: str) -> Any:
        return self._rows(name)[0][0]

    def _do(self, act: Any) -> Any:
        try:
            return act()
        except apsw.NotADBError:
            raise SchemaError(f"{self.path} is not a SQLite database; name another file") from None
        except apsw.Error as error:
            raise translate(error) from error


def _sql(name: str) -> str:
    return load_statements("transfer_sqlite")[name].sql
