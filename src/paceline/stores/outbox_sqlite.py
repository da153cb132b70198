"""An outbox in an application's SQLite file, as its relay and as people see it.

The file is the application's: its journal mode and settings are left as they are, and a transaction of ours is short.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import msgspec

from paceline.model.errors import NotFoundError, OccupiedError, UnavailableError
from paceline.stores.outbox import Listed, OutboxFacts, OutboxPlace, OutboxRow, Refusal, statement, within
from paceline.stores.sqlite_schema import Ownership

T = TypeVar("T")

LOOK_S: Final = 0.1
"""How often it is asked whether somebody committed: a counter in the file's header or its log's index."""
_BUSY_MS: Final = 5000
"""How long we wait for the application's own transaction."""


class SqliteOutbox:
    """An `OutboxSource`; all of it happens in one thread of its own."""

    def __init__(self, place: OutboxPlace) -> None:
        """Nothing is opened yet."""
        self._place = place
        self._path = Path(place.where)
        self._thread = ThreadPoolExecutor(1, "paceline-outbox")
        self._closing = threading.Event()
        self._connection: apsw.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._ownership: Ownership | None = None
        self._seen = 0

    async def open(self) -> None:
        """See `OutboxSource.open`."""
        self._closing.clear()
        await self._run(self._begin)

    async def close(self) -> None:
        """See `OutboxSource.close`."""
        self._closing.set()
        await self._run(self._end)

    async def next(self, rows: int, size: int) -> list[OutboxRow]:
        """See `OutboxSource.next`."""
        return await self._run(lambda: self._next(rows, size))

    async def finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
        """See `OutboxSource.finish`."""
        await self._run(lambda: self._finish(taken, refused, now))

    async def wait(self, seconds: float) -> None:
        """See `OutboxSource.wait`."""
        await self._run(lambda: self._wait(seconds))

    def _begin(self) -> None:
        self._connection = _connect(self._place)
        self._file = _identity(self._path)
        try:
            # Beside the application's file, not its lock: that is SQLite's business.
            self._ownership = Ownership(self._path.with_name(self._path.name + ".outbox"))
        except OccupiedError:
            self._end()
            raise UnavailableError(f"another process relays {self._place.name}") from None

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None

    def _next(self, rows: int, size: int) -> list[OutboxRow]:
        connection = self._open()
        self._seen = _version(connection)  # before the read: a commit after it is seen by `wait`
        found = connection.execute(_sql("next"), (rows,)).fetchall()
        rows_: list[Any] = []
        for name, places in zip(("texts", "oversized"), within(found, size), strict=True):
            if places:
                rows_ += connection.execute(_sql(name), (_json(places),)).fetchall()
        return [OutboxRow(*row) for row in sorted(rows_)]

    def _finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
        connection = self._open()
        with _immediate(connection):
            connection.executemany(_sql("taken"), [(row.position, row.key) for row in taken])
            connection.executemany(
                _sql("refused"), [(each.row.position, each.row.key, each.error, now) for each in refused]
            )

    def _wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / LOOK_S))):
            if _version(self._open()) != self._seen or self._closing.wait(LOOK_S):
                return

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise UnavailableError(f"{self._place.name} is not open")
        if _identity(self._path) != self._file:
            raise UnavailableError(f"{self._path} was moved or replaced")
        return self._connection

    async def _run(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: _do(self._place, act))


class SqliteOutboxDesk:
    """An `OutboxDesk`."""

    def __init__(self, place: OutboxPlace) -> None:
        """Each call opens the file by itself."""
        self._place = place

    async def create(self, *, bell: bool) -> None:
        """See `OutboxDesk.create`. The file is made as well; it needs no bell."""

        def make() -> None:
            connection = _connect(self._place, there=False)
            try:
                with _immediate(connection):
                    connection.execute(statement("sqlite", "make_table"))
            finally:
                connection.close()

        await self._run(make)

    async def facts(self) -> OutboxFacts:
        """See `OutboxDesk.facts`."""
        (row,) = await self._all("facts")
        return OutboxFacts(*row)

    async def rows(self, *, refused: bool, most: int) -> list[Listed]:
        """See `OutboxDesk.rows`."""
        return [Listed(*row) for row in await self._all("list", refused, most)]

    async def retry(self, keys: Sequence[str]) -> int:
        """See `OutboxDesk.retry`."""
        return await self._change("retry", _json(keys), not keys)

    async def discard(self, keys: Sequence[str]) -> int:
        """See `OutboxDesk.discard`."""
        return await self._change("discard", _json(keys))

    async def _all(self, name: str, *values: Any) -> list[Any]:
        def read() -> list[Any]:
            connection = _connect(self._place)
            try:
                return connection.execute(_sql(name), values).fetchall()
            finally:
                connection.close()

        return await self._run(read)

    async def _change(self, name: str, *values: Any) -> int:
        def change() -> int:
            connection = _connect(self._place)
            try:
                with _immediate(connection):
                    connection.execute(_sql(name), values)
                    return connection.changes()
            finally:
                connection.close()

        return await self._run(change)

    async def _run(self, act: Callable[[], T]) -> T:
        return await asyncio.to_thread(_do, self._place, act)


def _connect(place: OutboxPlace, *, there: bool = True) -> apsw.Connection:
    """The file, with an outbox in it.

    Raises:
        NotFoundError: there is none, and it should be `there`.
    """
    path = Path(place.where)
    flags = apsw.SQLITE_OPEN_READWRITE | (0 if there else apsw.SQLITE_OPEN_CREATE)
    if there and not path.exists():
        raise NotFoundError(f"there is no file {path}; make it with: paceline outbox create URL")
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        if there and not connection.execute(_sql("find")).get:
            raise NotFoundError(f"there is no outbox in {path}; make it with: paceline outbox create URL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _immediate(connection: apsw.Connection) -> Iterator[None]:
    """One transaction that writes from its start, so that it waits for its turn and not in the middle."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _do(place: OutboxPlace, act: Callable[[], T]) -> T:
    try:
        return act()
    except apsw.Error as error:
        raise UnavailableError(f"{place.name} cannot be used now ({error})") from error


def _version(connection: apsw.Connection) -> int:
    """Changes with each commit of another connection. (apsw's own `data_version` only after a read noticed it.)"""
    return int(connection.pragma("data_version"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _sql(name: str) -> str:
    return statement("sqlite", name)
