"""What the writers of all stores share: the calls that gather for one commit, and whose answer is whose."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from paceline.model.errors import PacelineError
from paceline.model.messages import AccountNote, Added, FlowKey, Mark, NewMessage, Revision, Settlement
from paceline.model.wide import Need
from paceline.stores.base import Ahead


class TooSlowError(PacelineError):
    """A read took too long and was stopped."""


class Kind(IntEnum):
    """Kinds of writes in the order in which a commit runs them."""

    SETTLE = 1
    ADD = 2
    PROMOTE = 3
    EXPIRE = 4
    REVISE = 5
    HAND_OVER = 6
    OTHER = 7


class Call:
    """One write that somebody waits for; `answer` is its result, or the error it ends with."""

    __slots__ = ("answer", "future", "kind", "rows", "work")

    def __init__(self, kind: Kind, work: Any, rows: int, future: asyncio.Future[Any]) -> None:
        """Nothing is answered yet."""
        self.kind = kind
        self.work = work
        self.rows = rows
        self.future = future
        self.answer: Any = None


class Add(msgspec.Struct, frozen=True):
    """Rows to add and the flows that may be new."""

    rows: Sequence[NewMessage]
    flows: Sequence[FlowKey]


class Settle(msgspec.Struct, frozen=True):
    """Settlements with what they bring along."""

    settlements: Sequence[Settlement]
    notes: Sequence[AccountNote]
    follow_ups: Sequence[NewMessage]
    flows: Sequence[FlowKey]


class HandOver(msgspec.Struct, frozen=True):
    """Hand-overs to mark. `needs` are the places that each takes; none where no wide limit is known.

    `revision` is that of the wide limits which the caller knows, None for a caller that asks for no places. See
    `NodeStore.hand_over`.
    """

    marks: Sequence[Mark]
    needs: Sequence[Sequence[Need]] = ()
    revision: int | None = None
    now: int = 0
    apart: int = 0
    heard: int = 0


class Revise(msgspec.Struct, frozen=True):
    """People's changes and the flows that they lead to."""

    revisions: Sequence[Revision]
    flows: Sequence[FlowKey]
    now: int


class Moment(msgspec.Struct, frozen=True):
    """A step of the clock: up to `most` messages at `now`, when the wall clock is ahead by what `ahead` tells."""

    now: int
    most: int
    ahead: Ahead


class Keys:
    """The idempotency keys of a batch of rows: whose a key is, and who gets its first owner's answer."""

    def __init__(self, rows: Sequence[NewMessage]) -> None:
        """Nothing is known of them yet."""
        self._rows = rows
        self.asked = [(place, row.tenant, row.idempotency_key) for place, row in enumerate(rows)
                      if row.idempotency_key is not None]  # fmt: skip

    def take(
        self, known: Iterable[Sequence[Any]], answers: list[Added]
    ) -> list[tuple[str, str | None, int, str | None]]:
        """Those to remember, as (tenant, key, message, fingerprint).

        `known` are the places whose key is stored already, each with its message and fingerprint. Rows with such a
        key, or with that of an earlier row, get the first one's answer in `answers`.
        """
        for place, message, fingerprint in known:
            answers[place] = Added(message, duplicate=True, fingerprint=fingerprint)
        first: dict[tuple[str, str | None], NewMessage] = {}
        for place, tenant, key in self.asked:
            if not answers[place].duplicate:
                row = first.setdefault((tenant, key), self._rows[place])
                if row is not self._rows[place]:
                    answers[place] = Added(row.id, duplicate=True, fingerprint=row.fingerprint)
        return [(tenant, key, row.id, row.fingerprint) for (tenant, key), row in first.items()]


class Owners:
    """Tells which call a position in the batch belongs to."""

    def __init__(self, sizes: Iterable[int]) -> None:
        """`sizes`: how many rows each call has, in the order of the batch."""
        self._starts: list[int] = []
        start = 0
        for size in sizes:
            self._starts.append(start)
            start += size

    def of(self, place: int) -> int:
        """The call; of those without rows, which start where the next one does, the last has the row."""
        return bisect_right(self._starts, place) - 1


def by_kind(calls: Sequence[Call]) -> Iterator[tuple[Kind, list[Call]]]:
    """The calls of each kind in the order of kinds."""
    for kind in Kind:
        chosen = [call for call in calls if call.kind is kind]
        if chosen:
            yield kind, chosen


def rounds_of(calls: Iterable[Revise]) -> Iterator[list[Revise]]:
    """Calls that share a batch: a message stands in it once, so that a second change sees the first."""
    batch: list[Revise] = []
    seen: set[int] = set()
    for call in calls:
        ids = {row.id for row in call.revisions}
        if batch and not seen.isdisjoint(ids):
            yield batch
            batch, seen = [], set()
        batch.append(call)
        seen |= ids
    if batch:
        yield batch


def resolve(calls: Sequence[Call]) -> None:
    """Give every caller that still waits its answer; on the event loop."""
    for call in calls:
        if call.future.done():
            continue
        if isinstance(call.answer, Exception):
            call.future.set_exception(call.answer)
        else:
            call.future.set_result(call.answer)
