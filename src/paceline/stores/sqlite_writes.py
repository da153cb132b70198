"""From calls to rows of the view `work` (see ``sql/sqlite/work.sql``), and from its answers back to calls.

Each planner takes all calls of its kind that share a commit. Their rows become one batch; an answer finds its
call again by its position in that batch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from paceline.model.messages import (
    Added,
    FlowKey,
    HandedOver,
    NewMessage,
)
from paceline.stores.base import Expired, Promoted
from paceline.stores.calls import Add, HandOver, Keys, Moment, Owners, Revise, Settle, rounds_of
from paceline.stores.sqlite_schema import Session

_encoder = msgspec.json.Encoder()
_read_claims = msgspec.json.Decoder(list[tuple[int, HandedOver]]).decode
_read_known = msgspec.json.Decoder(list[tuple[int, int, str | None]]).decode
_read_positions = msgspec.json.Decoder(list[int]).decode
_read_promoted = msgspec.json.Decoder(Promoted).decode
_read_expired = msgspec.json.Decoder(Expired).decode


LARGE = 64 * 1024
"""Content of so many characters travels as a value of its own: out of a list SQLite would read it once a column,
and hold twenty copies of it at a time."""


class Work(msgspec.Struct, frozen=True, gc=False):
    """A row of the view `work`; the lists are JSON texts."""

    kind: str
    rows: str | None = None
    flows: str | None = None
    keys: str | None = None
    counts: str | None = None
    moved: str | None = None
    results: str | None = None
    now: int | None = None
    most: int | None = None
    ahead: int | None = None


class Plan(msgspec.Struct, frozen=True):
    """What to put in, and how to deal the texts that come out: one answer a call."""

    works: list[Work]
    deal: Callable[[Iterator[str]], Sequence[Any]]
    large: Sequence[tuple[str, int]] = ()
    """Content that is stored beside the works, in the same commit, with the id of its message."""
    asks: bool = True
    """Whether any text comes out."""


class Other(msgspec.Struct, frozen=True):
    """Any other write: a work that answers a number, or nothing."""

    work: Work
    answers: bool


class Encoded(msgspec.Struct, frozen=True):
    """Rows to add that only have to be put in: whoever asked has made the JSON text, while it had the
    interpreter's lock. The writer, as long as it prepares a commit, would have to win the lock again and again.
    """

    rows: Sequence[NewMessage]
    flows: Sequence[FlowKey]
    text: str


class Planner(Protocol):
    """Plans the calls of a kind; may look things up first, in the same moment of the database."""

    def __call__(self, session: Session, calls: Sequence[Any], /) -> Plan:
        """One plan for all `calls`."""


def encode(rows: Sequence[Any]) -> str:
    """Rows as the JSON text that a statement takes."""
    return _encoder.encode(rows).decode()


def settle(session: Session, calls: Sequence[Settle]) -> Plan:
    """End hand-overs; answers each call's stale ids."""
    rows = [row for call in calls for row in call.settlements]
    notes = [note for call in calls for note in call.notes]
    works: list[Work] = []
    large: Sequence[tuple[str, int]] = ()
    if rows:
        moved = [(row.id, row.moved_to, place) for place, row in enumerate(rows) if row.moved_to is not None]
        results = [(row.id, row.result, place) for place, row in enumerate(rows) if row.result is not None]
        works.append(Work("settle", encode(rows), moved=_some(moved), results=_some(results)))
    if notes:
        works.append(Work("note", encode(notes)))
    extra = [Add(call.follow_ups, call.flows) for call in calls if call.follow_ups or call.flows]
    if extra:
        added = add(session, extra)
        works, large = works + added.works, added.large

    def deal(texts: Iterator[str]) -> list[list[int]]:
        fitting = set(_read_positions(next(texts))) if rows else set()
        owners = Owners(len(call.settlements) for call in calls)
        stale: list[list[int]] = [[] for _ in calls]
        for place, row in enumerate(rows):
            if place not in fitting:
                stale[owners.of(place)].append(row.id)
        return stale

    return Plan(works, deal, large)


def encoded(rows: Sequence[NewMessage], flows: Sequence[FlowKey]) -> Add | Encoded:
    """Rows to add, ready to be put in unless the database has to be asked something about them first."""
    for row in rows:
        if row.idempotency_key is not None or len(row.content) > LARGE:
            return Add(rows, flows)
    try:
        return Encoded(rows, flows, encode(rows)) if rows else Add(rows, flows)
    except (TypeError, ValueError, OverflowError):
        return Add(rows, flows)  # the writer finds out which one cannot be written, and who is told


def add(session: Session, calls: Sequence[Add | Encoded]) -> Plan:
    """Store new messages; answers one `Added` a row."""
    ready = [call for call in calls if isinstance(call, Encoded)]
    others = [call for call in calls if isinstance(call, Add)]
    rows = [row for call in others for row in call.rows]
    answers = [Added(row.id) for row in rows]
    keys = _take_keys(session, rows, answers)
    fresh = (
        [row for row, answer in zip(rows, answers, strict=True) if not answer.duplicate]
        if keys is not None
        else rows
    )
    counts = Counter([(row.flow, row.state) for row in fresh])
    counts.update([(row.flow, row.state) for call in ready for row in call.rows])
    large = [(row.content, row.id) for row in fresh if len(row.content) > LARGE]
    if large:
        fresh = [
            row if len(row.content) <= LARGE else msgspec.structs.replace(row, content="") for row in fresh
        ]
    texts = [call.text for call in ready]
    if fresh:
        texts.append(encode(fresh))
    work = Work(
        "add", _joined(texts), flows=_flows(calls), keys=_some(keys or []),
        counts=encode([(*key, count) for key, count in counts.items()]),
    )  # fmt: skip

    def deal(_texts: Iterator[str]) -> list[list[Added]]:
        dealt = iter(answers)
        return [
            [Added(row.id) for row in call.rows]
            if isinstance(call, Encoded)
            else [next(dealt) for _ in call.rows]
            for call in calls
        ]

    return Plan([work], deal, large, asks=False)


def hand_over(_session: Session, calls: Sequence[HandOver]) -> Plan:
    """Mark hand-overs; answers each call's messages that still fitted."""
    work = Work("hand_over", encode([mark for call in calls for mark in call.marks]))

    def deal(texts: Iterator[str]) -> list[list[HandedOver]]:
        claims = sorted(_read_claims(next(texts)), key=_first)
        if len(calls) == 1:
            return [[row for _, row in claims]]
        owners = Owners(len(call.marks) for call in calls)
        dealt: list[list[HandedOver]] = [[] for _ in calls]
        for place, row in claims:
            dealt[owners.of(place)].append(row)
        return dealt

    return Plan([work], deal)


def promote(_session: Session, calls: Sequence[Moment]) -> Plan:
    """Turn due messages into pending ones, one call after the other."""
    works = [Work("promote", now=call.now, most=call.most, ahead=call.ahead()) for call in calls]
    return Plan(works, lambda texts: [_read_promoted(next(texts)) for _ in calls])


def expire(_session: Session, calls: Sequence[Moment]) -> Plan:
    """End messages whose time passed, one call after the other."""
    works = [Work("expire", now=call.now, most=call.most, ahead=call.ahead()) for call in calls]
    return Plan(works, lambda texts: [_read_expired(next(texts)) for _ in calls])


def revise(_session: Session, calls: Sequence[Revise]) -> Plan:
    """Apply people's changes; answers each call's ids that still fitted."""
    rounds = list(rounds_of(calls))
    works = [
        Work(
            "revise", encode([row for call in batch for row in call.revisions]), flows=_flows(batch),
            now=max(call.now for call in batch),
        )
        for batch in rounds
    ]  # fmt: skip

    def deal(texts: Iterator[str]) -> list[list[int]]:
        dealt: list[list[int]] = []
        for batch in rounds:
            rows = [row for call in batch for row in call.revisions]
            owners = Owners(len(call.revisions) for call in batch)
            changed: list[list[int]] = [[] for _ in batch]
            for place in _read_positions(next(texts)):
                changed[owners.of(place)].append(rows[place].id)
            dealt += changed
        return dealt

    return Plan(works, deal)


def other(_session: Session, calls: Sequence[Other]) -> Plan:
    """Everything else, one call after the other."""
    return Plan(
        [call.work for call in calls],
        lambda texts: [int(next(texts)) if call.answers else None for call in calls],
    )


def _take_keys(session: Session, rows: Sequence[NewMessage], answers: list[Added]) -> list[Any] | None:
    """The idempotency keys to remember, None without any; see `Keys.take`."""
    keys = Keys(rows)
    if not keys.asked:
        return None
    return keys.take(_read_known(session.value("known_keys", encode(keys.asked))), answers)


def _joined(lists: Sequence[str]) -> str:
    """Lists as JSON texts, none of them empty, as one."""
    return lists[0] if len(lists) == 1 else f"[{','.join([text[1:-1] for text in lists])}]"


def _flows(calls: Iterable[Add | Encoded | Revise]) -> str | None:
    flows = {flow.number: flow for call in calls for flow in call.flows}
    return _some([(number, *msgspec.structs.astuple(flow)) for number, flow in flows.items()])


def _some(rows: Sequence[Any]) -> str | None:
    return encode(rows) if rows else None


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]
