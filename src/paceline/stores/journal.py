"""The protocol by which an audit reads a store: everything in it, in pages, without owning it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from paceline.model.journal import Counted, DayFigures, Leftover, Sent, Standing
from paceline.model.messages import FlowKey
from paceline.stores.base import Attempt, Document


class JournalReader(Protocol):
    """Reads a store for the audit without owning it, and never writes; the owner may be at work meanwhile.

    Rows come in pages, so that memory does not grow with them. A store that cannot be read raises
    `UnavailableError`, at any call.
    """

    @property
    def name(self) -> str:
        """The store's name for people: its file, or its address without a password."""

    async def open(self) -> None:
        """Find the store.

        Raises:
            NotFoundError: there is none.
            SchemaError: it is not a Paceline store, or one of another version.
        """

    async def close(self) -> None:
        """Let it go."""

    def moment(self) -> AbstractAsyncContextManager[None]:
        """All reads inside see the store as it is when the first one is made."""

    async def sizes(self) -> dict[str, int]:
        """How many `messages` and journal `lines` there are, and how many `bytes` they take."""

    async def documents(self, kind: str) -> list[Document]:
        """See `Store.documents`."""

    async def flow_keys(self) -> dict[int, FlowKey]:
        """See `Store.flow_keys`."""

    async def told_to_wait(self) -> list[str]:
        """Accounts that a provider ever told to wait, as far as the journal goes back."""

    def sends(self, since: int, account: str | None = None) -> AsyncIterator[list[Sent]]:
        """Sends that finished after `since`, account by account (or of one alone), each by start."""

    def sends_in_time(self, since: int) -> AsyncIterator[list[Sent]]:
        """The same of all accounts together, by start."""

    def standings(self, first: int) -> AsyncIterator[list[Standing]]:
        """Every message from the id `first`, by id."""

    def lines(self, first: int) -> AsyncIterator[list[Attempt]]:
        """Every journal line of messages from the id `first`, by (message, number)."""

    def counts(self) -> AsyncIterator[list[Counted]]:
        """Kept counts beside real ones."""

    def days(self) -> AsyncIterator[list[DayFigures]]:
        """Kept figures of each day beside the journal's."""

    async def leftovers(self) -> list[Leftover]:
        """Rows that point to nothing."""

    async def integrity(self) -> list[str]:
        """What the store's check of its own files finds; empty when all is well or there is no such check."""
