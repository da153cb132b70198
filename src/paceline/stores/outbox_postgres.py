"""An outbox in a PostgreSQL database, in any schema of it, as its relay and as people see it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import asyncpg

from paceline.model.errors import NotFoundError, UnavailableError
from paceline.stores.outbox import Listed, OutboxFacts, OutboxPlace, OutboxRow, Refusal, statement, within

T = TypeVar("T")

CHANNEL: Final = "paceline_outbox"
_CONNECT_S: Final = 10.0
_COMMAND_S: Final = 60.0
_SETTINGS: Final = {
    "jit": "off",
    # The table goes from empty to full and back in minutes: a plan made from old statistics would read all of it.
    "enable_seqscan": "off",
    "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4",
}  # fmt: skip


class PostgresOutbox:
    """An `OutboxSource`; it is used by one task at a time."""

    def __init__(self, place: OutboxPlace) -> None:
        """Nothing is connected yet."""
        self._place = place
        self._connection: Any = None
        self._rung = asyncio.Event()

    async def open(self) -> None:
        """See `OutboxSource.open`."""
        self._connection = connection = await _connect(self._place)
        try:
            if not await self._value("lock"):
                raise UnavailableError(f"another process relays {self._place.name}")
            await connection.add_listener(CHANNEL, self._heard)
            connection.add_termination_listener(self._lost)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `OutboxSource.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _hang_up(connection)

    async def next(self, rows: int, size: int) -> list[OutboxRow]:
        """See `OutboxSource.next`."""
        read, oversized = within(await self._rows("next", rows), size)
        found = await self._rows("texts", read) if read else []
        found += await self._rows("oversized", oversized) if oversized else []
        return [OutboxRow(*row) for row in sorted(found, key=lambda row: int(row[0]))]

    async def finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
        """See `OutboxSource.finish`. When it was refused is the database's time."""
        await _do(self._place, self._finish(taken, refused))

    async def wait(self, seconds: float) -> None:
        """See `OutboxSource.wait`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()

    async def _finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal]) -> None:
        async with self._open.transaction():
            if taken:
                positions, keys = [row.position for row in taken], [row.key for row in taken]
                await self._open.execute(_sql("taken"), positions, keys)
            if refused:
                columns = ([r.row.position for r in refused], [r.row.key for r in refused],
                           [r.error for r in refused])  # fmt: skip
                await self._open.execute(_sql("refused"), *columns)

    def _heard(self, _connection: object, _process: int, _channel: str, payload: object) -> None:
        if payload == self._place.schema:
            self._rung.set()

    def _lost(self, _connection: object) -> None:
        self._rung.set()  # the next read says it

    async def _rows(self, name: str, *values: Any) -> list[Sequence[Any]]:
        found: list[Sequence[Any]] = await _do(self._place, self._open.fetch(_sql(name), *values))
        return found

    async def _value(self, name: str, *values: Any) -> Any:
        return await _do(self._place, self._open.fetchval(_sql(name), *values))

    @property
    def _open(self) -> Any:
        if self._connection is None:
            raise UnavailableError(f"{self._place.name} is not connected")
        return self._connection


class PostgresOutboxDesk:
    """An `OutboxDesk`."""

    def __init__(self, place: OutboxPlace) -> None:
        """Each call connects by itself."""
        self._place = place

    async def create(self, *, bell: bool) -> None:
        """See `OutboxDesk.create`."""
        names = ["make_table", "make_bell"] if bell else ["make_table"]
        script = ";\n".join(statement("postgresql", name, self._place.schema) for name in names)
        async with _connected(self._place, there=False) as connection:
            await _do(self._place, connection.execute(script))

    async def facts(self) -> OutboxFacts:
        """See `OutboxDesk.facts`."""
        async with _connected(self._place) as connection:
            return OutboxFacts(*await _do(self._place, connection.fetchrow(_sql("facts"))))

    async def rows(self, *, refused: bool, most: int) -> list[Listed]:
        """See `OutboxDesk.rows`."""
        async with _connected(self._place) as connection:
            found = await _do(self._place, connection.fetch(_sql("list"), refused, most))
        return [Listed(*row) for row in found]

    async def retry(self, keys: Sequence[str]) -> int:
        """See `OutboxDesk.retry`."""
        async with _connected(self._place) as connection:
            asked = connection.fetchval(_sql("retry"), list(keys), not keys)
            count = int(await _do(self._place, asked))
            await _do(self._place, connection.fetchval(_sql("ring")))
            return count

    async def discard(self, keys: Sequence[str]) -> int:
        """See `OutboxDesk.discard`."""
        async with _connected(self._place) as connection:
            return int(await _do(self._place, connection.fetchval(_sql("discard"), list(keys))))


@asynccontextmanager
async def _connected(place: OutboxPlace, *, there: bool = True) -> AsyncIterator[Any]:
    connection = await _connect(place, there=there)
    try:
        yield connection
    finally:
        await _hang_up(connection)


async def _connect(place: OutboxPlace, *, there: bool = True) -> Any:
    """A connection in the outbox's schema.

    Raises:
        NotFoundError: there is no outbox, and it should be `there`.
        UnavailableError: the server cannot be reached, or does not let us in.
    """
    settings = _SETTINGS | {"search_path": place.schema, "application_name": "paceline outbox"}
    try:
        connection = await asyncpg.connect(
            place.where, timeout=_CONNECT_S, command_timeout=_COMMAND_S, server_settings=settings
        )
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnavailableError(f"{place.name} cannot be reached ({_words(error)})") from error
    try:
        if there and not await _do(place, connection.fetchval(_sql("find"))):
            raise NotFoundError(
                f"there is no outbox in schema {place.schema} of {place.name}, or this role may not see it; make it"
                " with: paceline outbox create URL"
            )
    except BaseException:
        await _hang_up(connection)
        raise
    return connection


async def _hang_up(connection: Any) -> None:
    with suppress(Exception):  # whatever it says: the connection is not needed any more
        await connection.close(timeout=2)
    connection.terminate()


async def _do(place: OutboxPlace, act: Awaitable[T]) -> T:
    try:
        return await act
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnavailableError(f"{place.name} cannot be used now ({_words(error)})") from error


def _sql(name: str) -> str:
    return statement("postgresql", name)


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
