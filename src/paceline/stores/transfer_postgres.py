"""A PostgreSQL store as a whole, to be moved: see `transfer`.

The store itself is opened, and so owned as by a server; rows go over a connection beside it.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from paceline.model.errors import UnavailableError
from paceline.model.states import State
from paceline.stores.base import Document
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_address import parse_address
from paceline.stores.postgres_session import Session, connect, translate
from paceline.stores.statements import load_statements
from paceline.stores.transfer import PAGE, PAGE_BYTES, TABLES, Row

T = TypeVar("T")

_HOURS_S: Final = 86_400.0
"""A statement over a whole table may take its time."""
_LARGE_PAGE: Final = 32
"""Messages at a time: each may have some megabytes."""
_SETTINGS: Final = {"idle_in_transaction_session_timeout": "0", "statement_timeout": "0"}
_PLACE = ("id", "flow", "state", "number", "attempts", "due_at", "turn", "expires_at", "sender", "started_at",
          "finished_at")  # fmt: skip
_COLUMNS: Final = {
    "document": ("kind", "tenant", "name", "body", "updated_at", "revision"),
    "flow": ("number", "lane", "tenant", "campaign", "queue", "priority", "account"),
    "account_note": ("account", "recipient", "group", "flood_until", "stopped"),
    "idempotency": ("tenant", "key", "message", "fingerprint"),
    "tally": ("flow", "sender", "state", "count", "slot"),
    "daily": ("day", "tenant", "queue", "channel", "account", "completed", "failed", "retries", "send_ms", "slot"),
    "attempt": ("message", "number", "flow", "account", "recipient", "group", "handed_over", "started", "finished",
                "outcome", "code", "text", "reference"),
    "message": ("id", "created_at", "tenant", "queue", "channel", "account", "pool", "recipient", "priority",
                "max_attempts", "timeout_ms", "content", "trace_id", "backoff", "group", "source", "kind", "campaign",
                "batch", "metadata", "callback_url", "idempotency_key", "result", "outcome", "code", "text",
                "reference"),
    # An entry is kept in one of three tables, by its state.
    "waiting": _PLACE[:10],
    "under_way": (*_PLACE[:2], *_PLACE[3:10]),
    "ended": _PLACE,
}  # fmt: skip
_OF_A_NODE: Final = frozenset({"document", "tally", "daily"})
"""Here each row is of a node's slot, or of a change that nodes hear of: all are the first one's, and news to nobody."""
_UNDER_WAY: Final = int(State.PROCESSING)
_WAITING: Final = frozenset({int(State.SCHEDULED), int(State.PENDING), int(State.RETRYING)})


class PostgresMoving:
    """A `Moving` of one schema."""

    def __init__(self, url: str) -> None:
        """Name the store.

        Raises:
            InvalidError: the URL is none of a PostgreSQL database.
        """
        self._address = parse_address(url)
        self._store = PostgresStore(url, "alone")
        self._session: Session | None = None

    @property
    def name(self) -> str:
        """See `Moving.name`."""
        return self._address.name

    @property
    def keeps_nul(self) -> bool:
        """See `Moving.keeps_nul`."""
        return False

    async def exists(self) -> bool:
        """See `Moving.exists`."""
        session = await connect(self._address, "paceline store copy", _SETTINGS)
        try:
            found = await self._do(session.row("find_version", self._address.schema))
            return bool(found["ours"] or found["others"])
        finally:
            await session.close()

    async def open(self, now: int) -> None:
        """See `Moving.open`."""
        await self._store.open(now)
        try:
            self._session = await connect(self._address, "paceline store copy", _SETTINGS, _HOURS_S)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Moving.close`."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._store.close()

    async def installation(self) -> list[Document]:
        """See `Moving.installation`."""
        return await self._store.documents("installation")

    async def put(self, document: Document) -> None:
        """See `Moving.put`. As a write of the owner, it is refused if somebody took the store over meanwhile."""
        await self._store.put([document])

    async def is_empty(self) -> bool:
        """See `Moving.is_empty`."""
        return bool(await self._value("is_empty"))

    async def empty(self) -> None:
        """See `Moving.empty`."""
        await self._do(self._open.execute(_sql("empty")))
        await self._do(self._open.execute(_sql("empty_documents")))

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[None]:
        """See `Moving.moment`."""
        transaction: Any = self._open.transaction(isolation="repeatable_read", readonly=True)
        await self._do(transaction.start())
        try:
            yield
        finally:
            if not self._open.is_closed():
                await self._do(transaction.rollback())

    async def sizes(self) -> dict[str, int]:
        """See `Moving.sizes`."""
        row: Any = await self._do(self._open.fetchrow(_sql("sizes")))
        return dict(zip(TABLES, row, strict=True))

    async def read(self, table: str) -> AsyncIterator[list[Row]]:
        """See `Moving.read`."""
        cursor: Any = await self._do(self._open.cursor(_sql(f"read_{table}")))
        page: list[Row] = []
        size = 0
        while found := await self._do(cursor.fetch(_LARGE_PAGE if table == "message" else PAGE)):
            page += map(tuple, found)
            size += sum(len(row["content"]) for row in found) if table == "message" else 0
            if len(page) >= PAGE or size >= PAGE_BYTES:
                yield page
                page, size = [], 0
        if page:
            yield page

    async def write(self, table: str, rows: Sequence[Row]) -> None:
        """See `Moving.write`."""
        if table in _OF_A_NODE:
            rows = [(*row, 0) for row in rows]
        if table != "entry":
            await self._copy(table, rows)
            return
        await self._copy("waiting", [row[:10] for row in rows if row[2] in _WAITING])
        await self._copy("under_way", [(*row[:2], *row[3:10]) for row in rows if row[2] == _UNDER_WAY])
        await self._copy("ended", [row for row in rows if row[2] not in _WAITING and row[2] != _UNDER_WAY])

    async def greatest_id(self) -> int:
        """See `Moving.greatest_id`."""
        return await self._store.greatest_id()

    async def keep_greatest_id(self, number: int) -> None:
        """See `Moving.keep_greatest_id`."""
        await self._do(self._open.execute(_sql("keep_greatest_id"), number))

    async def flush(self) -> None:
        """See `Moving.flush`: each write was committed. The planner should know what there is now."""
        await self._do(self._open.execute("ANALYZE"))

    async def _copy(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            copy = self._open.copy_records_to_table(
                table,
                records=rows,
                columns=_COLUMNS[table],
                schema_name=self._address.schema,
                timeout=_HOURS_S,
            )
            await self._do(copy)

    @property
    def _open(self) -> Any:
        if self._session is None:
            raise UnavailableError(f"{self.name} is not open")
        return self._session.connection

    async def _value(self, name: str) -> Any:
        return await self._do(self._open.fetchval(_sql(name)))

    async def _do(self, act: Awaitable[T]) -> T:
        try:
            return await act
        except Exception as error:
            raise translate(error, self.name) from error


def _sql(name: str) -> str:
    return load_statements("transfer_postgres")[name].sql
