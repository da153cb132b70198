"""The one protocol between the engine and a store.

Every write returns after its commit was flushed to disk; calls made at the same moment share one commit.
Batches go in, batches come out, and the time is always handed in. Nothing here decides: the engine hands
over rows whose states `model.states` computed, and the store applies them only where they still fit.

All calls raise `UnavailableError` when the store cannot write now (disk full, file gone): nothing was
acknowledged and the same call may be made again.

Accounts are named here by their account id, ``"owner/name"`` (`model.messages.account_id`): two tenants may
use the same name, and an account of one tenant may be shared with others. The store never takes it apart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from paceline.model.messages import (
    AccountNote,
    Added,
    Entry,
    FlowKey,
    HandedOver,
    Mark,
    NewMessage,
    Revision,
    Settlement,
)

if TYPE_CHECKING:
    from paceline.stores.nodes import NodeStore


class FlowAfter(msgspec.Struct, array_like=True, frozen=True):
    """A request for the next due entries of a flow, behind (`turn`, `id`)."""

    flow: int
    turn: int
    id: int
    limit: int


class FlowPart(msgspec.Struct, array_like=True):
    """The entries found; `more` tells whether the flow holds others behind them."""

    flow: int
    entries: list[Entry]
    more: bool


class FlowState(msgspec.Struct, array_like=True):
    """A flow that has pending messages, found at start."""

    number: int
    key: FlowKey
    pending: int


class Promoted(msgspec.Struct, array_like=True):
    """Messages whose moment came, as (flow, entry); `next_due` is the moment of the next one, if any.

    That moment is on the scale of the `now` that was given, as `next_expiry` is.
    """

    entries: list[tuple[int, Entry]]
    next_due: int | None


class Expired(msgspec.Struct, array_like=True):
    """Ids that were ended because their `expires_at` passed; `next_expiry` is the next such moment."""

    ids: list[int]
    next_expiry: int | None


class Occupancy(msgspec.Struct, array_like=True):
    """One journalled send that may still occupy windows: its keys and the moment it finished.

    `spent`: the provider took it, or may have, so that it used up quota.
    """

    flow: int
    account: str
    recipient: str
    group: str | None
    finished: int
    spent: bool


class Tally(msgspec.Struct, array_like=True):
    """How many messages of a flow, sent (or last sent) by `sender`, are in a state."""

    flow: int
    sender: str
    state: int
    count: int


class Daily(msgspec.Struct, array_like=True):
    """Settled work of a day (days since 1970; 0 = all time) by queue and account."""

    day: int
    tenant: str
    queue: str
    channel: str
    account: str
    completed: int
    failed: int
    retries: int
    send_ms: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages: every given part has to match; several values in one part are alternatives."""

    tenant: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    channel: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    campaign: tuple[str, ...] = ()
    batch: tuple[int, ...] = ()
    group: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    state: tuple[int, ...] = ()
    to: tuple[str, ...] = ()
    priority: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    code: tuple[str, ...] = ()
    created_from: int | None = None
    created_to: int | None = None
    q: str | None = None


class StoredMessage(msgspec.Struct, array_like=True):
    """A message in full, as kept. `number` counts hand-overs and endings, `attempts` those that counted."""

    id: int
    flow: int
    state: int
    number: int
    attempts: int
    due_at: int
    turn: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    tenant: str
    queue: str
    channel: str
    account: str
    sender: str
    pool: str
    recipient: str
    priority: int
    max_attempts: int
    timeout_ms: int
    content: str
    trace_id: str
    backoff: str | None
    group: str | None
    source: str | None
    kind: str | None
    campaign: str | None
    batch: int | None
    metadata: str | None
    callback_url: str | None
    idempotency_key: str | None
    outcome: str | None
    code: str | None
    text: str | None
    reference: str | None
    result: str | None


class Attempt(msgspec.Struct, array_like=True):
    """A journal line: one hand-over (with its account), or one ending without a call (account empty).

    `handed_over` is when the mark was made, `started` when the call began; `finished` and `outcome` are None
    while it is under way.
    """

    message: int
    number: int
    flow: int
    account: str
    handed_over: int
    started: int | None
    finished: int | None
    outcome: str | None
    code: str | None
    text: str | None
    reference: str | None


class Document(msgspec.Struct, array_like=True):
    """A configuration row (account, queue, limit, key, template...): JSON `body` under (kind, tenant, name)."""

    kind: str
    tenant: str
    name: str
    body: str
    updated_at: int


class CopyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a database or a copy of one, found by a check of all of it.

    `version` is its schema's, `newest` the one that this program knows; `waiting` counts messages that will be
    sent, `under_way` those whose hand-over is marked and not ended.
    """

    version: int
    newest: int
    bytes: int
    messages: int
    waiting: int
    under_way: int
    documents: int


Ahead = Callable[[], int]
"""How many milliseconds the wall clock is ahead; asked, in any thread, when the write begins: what was added to the
same commit may have been scheduled after a step that whoever asked for the write did not know of."""


def level() -> int:
    """The wall clock is not ahead."""
    return 0


class Store(Protocol):
    """What the engine asks of a store. Methods that write are durable when they return."""

    @property
    def nodes(self) -> "NodeStore | None":
        """What it takes to share the store with other nodes; None where one process owns all of it."""

    async def open(self, now: int) -> None:
        """Create or migrate the schema and become the owner.

        Raises:
            OccupiedError: another process owns it.
            SchemaError: it is not a Paceline store, or a newer version wrote it.
        """

    async def close(self) -> None:
        """Finish what was asked for, release the ownership."""

    def add(
        self, rows: Sequence[NewMessage], flows: Sequence[FlowKey], now: int
    ) -> asyncio.Future[list[Added]]:
        """Store new messages; `flows` are those that may not be known yet. One answer a row, in order.

        Not a coroutine: the write is asked for at once, so that the store works while the caller goes on.
        A row whose (tenant, idempotency key) is known, or stands earlier in the same call, adds nothing.
        """

    async def hand_over(self, marks: Sequence[Mark], now: int) -> list[HandedOver]:
        """Mark pending messages as handed over and open their journal lines.

        Answers those that were still pending in the flow that the mark names, and leaves out the others.
        """

    async def settle(
        self, settlements: Sequence[Settlement], notes: Sequence[AccountNote],
        follow_ups: Sequence[NewMessage], flows: Sequence[FlowKey], now: int,
    ) -> list[int]:  # fmt: skip
        """End hand-overs, write their journal lines, note what was learnt of accounts, add `follow_ups`.

        Answers the ids whose settlement no longer fitted (stale) and changed nothing.
        """

    async def promote(self, now: int, most: int, ahead: Ahead = level) -> Promoted:
        """Turn up to `most` scheduled and retrying messages that are due into pending ones.

        A scheduled one is due by the wall clock, which shows `now + ahead()` milliseconds; with its promotion its
        due moment and its turn are brought to the scale of `now`, on which all that stands in line is ordered.
        """

    async def expire(self, now: int, most: int, ahead: Ahead = level) -> Expired:
        """End, at `now`, up to `most` waiting messages whose `expires_at` has passed by the wall clock.

        The wall clock shows `now + ahead()` milliseconds.
        """

    async def flows(self) -> list[FlowState]:
        """Every flow that has pending messages."""

    async def entries(self, requests: Sequence[FlowAfter]) -> list[FlowPart]:
        """The next pending entries of each flow asked for, in the order of (turn, id)."""

    async def processing(self) -> list[HandedOver]:
        """Messages whose hand-over is marked and not ended: after a crash, those that may have gone out."""

    async def occupancy(self, since: int, accounts: Sequence[tuple[str, int]] | None) -> list[Occupancy]:
        """Journalled sends that finished after `since`.

        `accounts` are (account id, newest n) to ask for; None asks for every send of every account.
        """

    async def revise(
        self, revisions: Sequence[Revision], now: int, flows: Sequence[FlowKey] = ()
    ) -> list[int]:
        """Apply people's changes; answers the ids that still fitted and were changed.

        `flows` are those that the revisions lead to and that may not be known yet.
        """

    async def get(self, ids: Sequence[int]) -> list[StoredMessage]:
        """The messages with these ids, in the order asked; unknown ones are left out."""

    async def find(self, wanted: Filter, before: int | None, limit: int) -> list[StoredMessage]:
        """Matching messages, newest first, with ids below `before`."""

    async def count(self, wanted: Filter) -> dict[int, int]:
        """Matching messages by state."""

    async def ahead(self, flow: int, turn: int, id: int) -> int:  # noqa: A002 - the field's own name
        """How many pending messages of the flow stand before this place."""

    async def attempts(self, ids: Sequence[int]) -> list[Attempt]:
        """Journal lines of these messages, oldest first."""

    async def tallies(self) -> list[Tally]:
        """The exact counts, kept by the transactions that change states."""

    async def daily(self, days: Sequence[int]) -> list[Daily]:
        """Settled work of these days; day 0 is all time."""

    async def flow_keys(self) -> dict[int, FlowKey]:
        """Every flow known, by its number."""

    async def notes(self) -> list[AccountNote]:
        """What is noted of accounts: flood waits (also those that are over) and stops."""

    async def put(self, documents: Sequence[Document], shift_waits: int = 0) -> None:
        """Insert or replace configuration rows; with them, or not at all, move every noted flood wait by so many ms."""

    async def remove(self, kind: str, tenant: str, name: str) -> bool:
        """Delete a configuration row; False when there was none."""

    async def documents(self, kind: str) -> list[Document]:
        """All configuration rows of a kind."""

    async def clean(self, wanted: Filter, finished_before: int | None, keep: int | None, most: int) -> int:
        """Delete up to `most` ended messages that match, oldest first; answers how many.

        Only those finished before `finished_before`, and only while more than `keep` of them are left.
        Journal lines stay: they are cleaned by `clean_journal`.
        """

    async def clean_journal(self, finished_before: int, most: int) -> int:
        """Delete up to `most` journal lines that finished before the moment and whose message is gone or ended."""

    async def greatest_id(self) -> int:
        """The greatest message id ever stored, 0 for none."""

    async def copy(self, target: Path, now: int) -> CopyFacts:
        """Write a consistent, checked copy to the new file `target`, beside everything that goes on.

        Raises:
            ConflictError: the file exists.
        """

    async def health(self) -> dict[str, Any]:
        """Facts for `doctor` and the metrics: version, sizes, waits, last commit, free space."""

    def export(self, wanted: Filter) -> AsyncIterator[list[StoredMessage]]:
        """All matching messages, newest first, a page at a time."""
