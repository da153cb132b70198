"""The outbox of an application: a table in its own database, what it is made of, and what a relay asks of it.

Knows no driver: the application's own connection writes to it (`paceline.outbox`), and one adapter for each kind of
database reads from it (`outbox_sqlite`, `outbox_postgres`).
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import msgspec

from paceline.model.accounts import DEFAULT_TENANT
from paceline.model.checks import check_name
from paceline.model.errors import InvalidError, Problem
from paceline.stores.statements import load_statements

Dialect = Literal["postgresql", "sqlite"]

TABLE: Final = "paceline_outbox"
LARGEST: Final = 16 * 1024**2
"""Bytes of the largest message; a larger row is refused without being read."""

_FOLDERS: Final = {"postgresql": "outbox_postgres", "sqlite": "outbox_sqlite"}
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_FORM: Final = (
    "must be postgresql://USER@HOST/DATABASE?schema=NAME or sqlite:///FILE, with &tenant=NAME for a tenant's"
)


class OutboxPlace(msgspec.Struct, frozen=True):
    """Where an outbox is and whose it is; `name` is what people are shown, `where` may hold a password."""

    dialect: Dialect
    where: str
    schema: str
    tenant: str
    name: str

    def __repr__(self) -> str:
        """Without the password: it may come to stand in a log."""
        return f"OutboxPlace({self.name!r})"


class OutboxRow(msgspec.Struct, frozen=True):
    """A row that waits. `message` is empty where `size`, in bytes, is more than `LARGEST`."""

    position: int
    key: str
    message: str
    size: int


class Refusal(msgspec.Struct, frozen=True):
    """A row that was refused, and why."""

    row: OutboxRow
    error: str


class OutboxFacts(msgspec.Struct, frozen=True):
    """How many rows wait, how many were refused, and the moment at which the oldest that waits was written."""

    waiting: int
    refused: int
    oldest: int | None


class Listed(msgspec.Struct, frozen=True):
    """A row as people see it; `message` is the beginning of its text, times are milliseconds."""

    position: int
    key: str
    message: str
    size: int
    written_at: int
    refused_at: int | None
    error: str | None


class OutboxSource(Protocol):
    """What a relay asks of an outbox. All calls raise `UnavailableError` when it cannot be used now."""

    async def open(self) -> None:
        """Connect, and become the only one that relays it.

        Raises:
            NotFoundError: there is no outbox.
            UnavailableError: it cannot be reached, or another process relays it.
        """

    async def close(self) -> None:
        """Let it go, whatever state it is in."""

    async def next(self, rows: int, size: int) -> list[OutboxRow]:
        """The first rows that were not refused: at most `rows`, and about `size` bytes, but one at least."""

    async def finish(self, taken: Sequence[OutboxRow], refused: Sequence[Refusal], now: int) -> None:
        """In one transaction delete what is acknowledged and keep why the others were refused."""

    async def wait(self, seconds: float) -> None:
        """Return once rows may have come since the last `next` began, or after so long."""


class OutboxDesk(Protocol):
    """What people do with an outbox, each time on a connection of its own."""

    async def create(self, *, bell: bool) -> None:
        """Make the table where it is not there; with a `bell` commits wake the relay."""

    async def facts(self) -> OutboxFacts:
        """What is in it."""

    async def rows(self, *, refused: bool, most: int) -> list[Listed]:
        """The first rows in order, refused ones alone or all."""

    async def retry(self, keys: Sequence[str]) -> int:
        """Let refused rows with these keys, without any all of them, be tried again; answers how many."""

    async def discard(self, keys: Sequence[str]) -> int:
        """Delete refused rows with these keys; answers how many."""


def parse_outbox(url: str) -> OutboxPlace:
    """Read the URL of an outbox.

    Raises:
        InvalidError: it cannot be one. The text never repeats the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        tenant = check_name(options.pop("tenant", DEFAULT_TENANT))
    except ValueError as error:
        raise _wrong(f"{_FORM} ({error})") from None
    shown = "" if tenant == DEFAULT_TENANT else f"tenant={tenant}"
    if parts.scheme == "sqlite":
        path = unquote(url.partition("?")[0].removeprefix("sqlite:///"))
        if not url.startswith("sqlite:///") or not path or options:
            raise _wrong(_FORM)
        return OutboxPlace("sqlite", path, "", tenant, f"sqlite:///{path}" + (shown and f"?{shown}"))
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise _wrong(_FORM)
    schema = check_schema(options.pop("schema", "public"))
    where = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
    query = "&".join(part for part in ("" if schema == "public" else f"schema={schema}", shown) if part)
    host = parts.netloc.rpartition("@")
    user = host[0].partition(":")[0]
    name = f"postgresql://{user}{host[1]}{host[2]}{parts.path}" + (query and f"?{query}")
    return OutboxPlace("postgresql", where, schema, tenant, name)


def check_schema(name: str) -> str:
    """A schema that needs no quoting to be named.

    Raises:
        InvalidError: it is none.
    """
    if not _SCHEMA.fullmatch(name):
        raise InvalidError([Problem("/schema", "must be lower-case letters, digits and _")])
    return name


def ddl(dialect: Dialect, *, schema: str | None = None, bell: bool = True) -> str:
    """The statements that make an outbox, for an application's own migrations. They may be run again.

    Args:
        dialect: ``postgresql`` or ``sqlite``.
        schema: where to, in PostgreSQL; without it where the connection makes its tables.
        bell: let each commit with rows wake the relay; only in PostgreSQL. In SQLite the relay sees commits.

    Raises:
        InvalidError: there is no such dialect, or the name of the schema is not a plain one.
    """
    names = ["make_table", "make_bell"] if bell and dialect == "postgresql" else ["make_table"]
    return "".join(f"{statement(dialect, name, schema)};\n" for name in names)


def statement(dialect: Dialect, name: str, schema: str | None = None) -> str:
    """A named statement about the table, which is in `schema` or where the connection looks first."""
    if dialect not in _FOLDERS:
        raise InvalidError([Problem("/dialect", "must be postgresql or sqlite")])
    table = TABLE if schema is None else f'"{check_schema(schema)}".{TABLE}'
    return load_statements(_FOLDERS[dialect])[name].sql.replace(":table", table)


def within(found: Sequence[Sequence[Any]], size: int) -> tuple[list[int], list[int]]:
    """Of (position, bytes) in order, the first that are about `size` together: to be read, and too large for that."""
    read: list[int] = []
    oversized: list[int] = []
    for position, large in found:
        if large > LARGEST:
            oversized.append(position)
            continue
        if read and large > size:
            break
        size -= large
        read.append(position)
    return read, oversized


def _wrong(text: str) -> InvalidError:
    return InvalidError([Problem("/outbox", text)])
