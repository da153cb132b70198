"""The protocol by which a whole store is moved into another one, of the same kind or not."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from paceline.stores.base import Document

Row = tuple[Any, ...]

TABLES: Final = (
    "document", "flow", "account_note", "idempotency", "tally", "daily", "attempt", "entry", "message",
)  # fmt: skip
"""What a store consists of, in the order in which it is copied: small things first. Rows of these look the same in
every store; where they are kept is its own business."""

PAGE: Final = 2000
"""Rows at a time, of messages fewer: they may be large."""
PAGE_BYTES: Final = 16 * 1024**2


class Moving(Protocol):
    """A store that this process owns, read or written as a whole.

    Raises `UnavailableError` at any call when it cannot be read or written.
    """

    @property
    def name(self) -> str:
        """The store's name for people: its file, or its address without a password."""

    @property
    def keeps_nul(self) -> bool:
        """Whether a text may have a NUL character."""

    async def exists(self) -> bool:
        """Whether there is a store, even an empty one. Nothing is made and nothing is owned."""

    async def open(self, now: int) -> None:
        """Make it where it is not there, and become its owner.

        Raises:
            OccupiedError: a server runs on it.
            SchemaError: it is not a Paceline store, or one of another version.
        """

    async def close(self) -> None:
        """Let it go."""

    async def installation(self) -> list[Document]:
        """What it knows of itself; none in a new one."""

    async def put(self, document: Document) -> None:
        """Write a configuration row, durably, on its own."""

    async def is_empty(self) -> bool:
        """Whether nothing was ever kept here."""

    async def empty(self) -> None:
        """Throw everything away but what it knows of itself: what is left of an unfinished copy."""

    def moment(self) -> AbstractAsyncContextManager[None]:
        """All reads inside see the store as it is when the first one is made."""

    async def sizes(self) -> dict[str, int]:
        """Rows of each of `TABLES`."""

    def read(self, table: str) -> AsyncIterator[list[Row]]:
        """All rows of a table in the order of its key, in pages that are bounded in rows and bytes."""

    async def write(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows; they are on disk after `flush`."""

    async def greatest_id(self) -> int:
        """The greatest message id ever stored, 0 for none."""

    async def keep_greatest_id(self, number: int) -> None:
        """Let no message ever have an id up to this one."""

    async def flush(self) -> None:
        """Return once everything written is on disk."""
