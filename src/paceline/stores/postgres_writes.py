"""From calls to the statements of ``sql/postgres/work.sql``, inside a transaction of the writer, and back to calls.

Each function takes all calls of its kind that share a commit. Their rows become one batch; an answer finds its call
again by its position in that batch.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from paceline.model.messages import Added, Entry, HandedOver, NewMessage, Revision, Settlement
from paceline.model.nodes import Wake, partition_of_flow
from paceline.model.states import WAITING, State
from paceline.stores import postgres_places
from paceline.stores.base import Expired, Promoted
from paceline.stores.calls import Add, HandOver, Keys, Kind, Moment, Owners, Revise, Settle, rounds_of
from paceline.stores.nodes import Handed
from paceline.stores.postgres_session import Session, columns

Work = Callable[[Session, Sequence[Any]], Awaitable[Sequence[Any]]]
"""Does the calls of a kind; one answer a call, in order."""

Other = Callable[[Session], Awaitable[Any]]
"""Any other write."""

_MESSAGE: Final = (
    "id", "created_at", "tenant", "queue", "channel", "account", "pool", "recipient", "priority", "max_attempts",
    "timeout_ms", "content", "trace_id", "backoff", "group", "source", "kind", "campaign", "batch", "metadata",
    "callback_url", "idempotency_key",
)  # fmt: skip
_WAITING: Final = (
    "id", "flow", "state", "number", "attempts", "due_at", "turn", "expires_at", "sender",
)  # fmt: skip
_CREATED: Final = NewMessage.__struct_fields__.index("created_at")
_TENANT: Final = NewMessage.__struct_fields__.index("tenant")
_FINGERPRINT: Final = NewMessage.__struct_fields__.index("fingerprint")


async def settle(session: Session, calls: Sequence[Settle]) -> Sequence[list[int]]:
    """End hand-overs; answers each call's stale ids."""
    rows = [row for call in calls for row in call.settlements]
    notes = [note for call in calls for note in call.notes]
    fitting = await _settle(session, rows)
    missed = [place for place in range(len(rows)) if place not in fitting]
    if missed:  # somebody may have changed the message under way just now, which moved its row
        fitting |= {missed[place] for place in await _settle(session, [rows[place] for place in missed])}
    if notes:
        *arrays, stopped = columns(notes, 5)
        await session.run("note", *arrays, [_storable(text) for text in stopped])
    extra = [Add(call.follow_ups, call.flows) for call in calls if call.follow_ups or call.flows]
    if extra:
        await add(session, extra)
    owners = Owners(len(call.settlements) for call in calls)
    stale: list[list[int]] = [[] for _ in calls]
    for place, row in enumerate(rows):
        if place not in fitting:
            stale[owners.of(place)].append(row.id)
    return stale


async def _settle(session: Session, rows: Sequence[Settlement]) -> set[int]:
    """End hand-overs that are still the open ones; their places among the rows."""
    if not rows:
        return set()
    arrays = columns(rows, 15)
    # A provider's words are kept even where it sent what no text of the database can hold.
    arrays[10:15] = [[_storable(text) for text in array] for array in arrays[10:15]]
    found = await session.rows("settle", *arrays, session.slot)
    fitting = {place - 1 for place, _ in found}
    if found and found[0][1]:
        await postgres_places.settle(session, [rows[place] for place in sorted(fitting)])
    return fitting


async def add(session: Session, calls: Sequence[Add]) -> Sequence[list[Added]]:
    """Store new messages; answers one `Added` a row."""
    rows = [row for call in calls for row in call.rows]
    answers = [Added(row.id) for row in rows]
    await _put_flows(session, calls)
    fresh = rows
    if any(row.idempotency_key is not None for row in rows):
        await _take_keys(session, rows, answers)
        fresh = [row for row, answer in zip(rows, answers, strict=True) if not answer.duplicate]
    if fresh:
        await _copy(session, fresh)
        await _wake(
            session, [Wake(row.flow, row.turn, row.id, 1, _due(row), row.expires_at) for row in fresh]
        )
    dealt = iter(answers)
    return [[next(dealt) for _ in call.rows] for call in calls]


async def hand_over(session: Session, calls: Sequence[HandOver]) -> Sequence[Handed]:
    """Mark hand-overs; answers each call's messages that still fitted."""
    revisions = {call.revision for call in calls}
    if len(revisions) > 1 or any(call.needs for call in calls):
        return await postgres_places.hand_over(session, calls)
    marks = [mark for call in calls for mark in call.marks]
    owners = Owners(len(call.marks) for call in calls)
    dealt = [Handed([], [], [], stale=False) for _ in calls]
    if marks:
        found = await session.rows("hand_over", *columns(marks, 4), session.slot, *revisions)
        for place, *given in found:
            dealt[owners.of(place - 1)].handed.append(HandedOver(*given))
        if not found and None not in revisions:  # all of them gone, or a limit that the caller does not know
            return await postgres_places.hand_over(session, calls)
    return dealt


async def promote(session: Session, calls: Sequence[Moment]) -> Sequence[Promoted]:
    """Turn due messages into pending ones, one call after the other."""
    answers = []
    for call in calls:
        ahead = call.ahead()
        parts = sorted(session.owned)
        moved = await session.rows("promote", call.now, call.most, ahead, parts, session.slot)
        entries = [(flow, Entry(*entry)) for flow, *entry in moved]
        answers.append(Promoted(entries, await session.value("next_due", ahead, parts)))
    return answers


async def expire(session: Session, calls: Sequence[Moment]) -> Sequence[Expired]:
    """End messages whose time passed, one call after the other."""
    answers = []
    for call in calls:
        ahead = call.ahead()
        parts = sorted(session.owned)
        ids = [
            id_ for (id_,) in await session.rows("expire", call.now, call.most, ahead, parts, session.slot)
        ]
        answers.append(Expired(ids, await session.value("next_expiry", ahead, parts)))
    return answers


async def revise(session: Session, calls: Sequence[Revise]) -> Sequence[list[int]]:
    """Apply people's changes; answers each call's ids that still fitted."""
    dealt: list[list[int]] = []
    for batch in rounds_of(calls):
        rows = [row for call in batch for row in call.revisions]
        owners = Owners(len(call.revisions) for call in batch)
        changed: list[list[int]] = [[] for _ in batch]
        await _put_flows(session, batch)
        now = max(call.now for call in batch)
        fitting: list[Revision] = []
        for (place,) in await session.rows("revise", *columns(rows, 14), now, session.slot) if rows else ():
            changed[owners.of(place - 1)].append(rows[place - 1].id)
            fitting.append(rows[place - 1])
        await _wake(session, [
            Wake(row.flow, row.turn, row.id, 1, _due(row), row.expires_at) for row in fitting if row.to_state in WAITING
        ])  # fmt: skip
        dealt += changed
    return dealt


async def other(session: Session, calls: Sequence[Other]) -> Sequence[Any]:
    """Everything else, one call after the other."""
    return [await call(session) for call in calls]


WORKS: Final[dict[Kind, Work]] = {
    Kind.SETTLE: settle,
    Kind.ADD: add,
    Kind.PROMOTE: promote,
    Kind.EXPIRE: expire,
    Kind.REVISE: revise,
    Kind.HAND_OVER: hand_over,
    Kind.OTHER: other,
}


def greatest_id(kind: Kind, works: Iterable[Any]) -> int:
    """The greatest id among the messages that these calls add, 0 without any."""
    if kind is Kind.ADD:
        return max((row.id for work in works for row in work.rows), default=0)
    if kind is Kind.SETTLE:
        return max((row.id for work in works for row in work.follow_ups), default=0)
    return 0


async def _copy(session: Session, rows: Sequence[NewMessage]) -> None:
    """New messages by COPY: a third of what arrays cost here, and half of what they cost there."""
    tuples = [msgspec.structs.astuple(row) for row in rows]
    # id, created_at, then tenant to idempotency_key as they stand.
    wide = [(row[0], row[_CREATED], *row[_TENANT:_FINGERPRINT]) for row in tuples]
    narrow = [(row.id, row.flow, row.state, 0, 0, row.due_at, row.turn, row.expires_at, "") for row in rows]
    await session.connection.copy_records_to_table("message", records=wide, columns=_MESSAGE)
    await session.connection.copy_records_to_table("waiting", records=narrow, columns=_WAITING)
    counts = Counter((row.flow, row.state) for row in rows)
    counted = [(*key, many) for key, many in counts.items()]
    await session.run("count_new", *map(list, zip(*counted, strict=True)), session.slot)


async def _put_flows(session: Session, calls: Iterable[Add | Revise]) -> None:
    flows = {flow.number: flow for call in calls for flow in call.flows}
    if flows:
        await session.run("put_flows", list(flows), *columns(list(flows.values()), 6))


async def _take_keys(session: Session, rows: Sequence[NewMessage], answers: list[Added]) -> None:
    """Remember the idempotency keys of new messages, and give the first one's answer to the others; see `Keys.take`.

    Another node may take a key between our look and our write: then we look again, until all are somebody's.
    """
    keys = Keys(rows)
    asked = list(map(list, zip(*keys.asked, strict=True)))
    ours = {row.id for row in rows}
    put: set[int] = set()
    while True:
        for place, _, _ in keys.asked:
            answers[place] = Added(rows[place].id)
        known = [row for row in await session.rows("known_keys", *asked) if row[1] not in ours]
        wanted = [key for key in keys.take(known, answers) if key[2] not in put]
        if not wanted:
            return
        if await session.value("put_keys", *map(list, zip(*wanted, strict=True))) == len(wanted):
            return
        mine = [row[1] for row in await session.rows("known_keys", *asked) if row[1] in ours]
        put.update(mine)


def _due(row: NewMessage | Revision) -> int | None:
    """When it is due, where it does not stand in line already."""
    state = row.state if isinstance(row, NewMessage) else row.to_state
    return None if state == State.PENDING else row.due_at


async def _wake(session: Session, wakes: Iterable[Wake]) -> None:
    """Leave word for the owners of other partitions, flow by flow."""
    found: dict[int, Wake] = {}
    for wake in wakes:
        if partition_of_flow(wake.flow) not in session.owned:
            first = found.get(wake.flow)
            found[wake.flow] = wake if first is None else _both(first, wake)
    if found:
        await session.run("wake", *columns(list(found.values()), 6))
        session.woken |= sum({1 << partition_of_flow(flow) for flow in found})


def _both(one: Wake, other: Wake) -> Wake:
    turn, id_ = min((one.turn, one.id), (other.turn, other.id))
    dues = [moment for moment in (one.due_at, other.due_at) if moment is not None]
    expiries = [moment for moment in (one.expires_at, other.expires_at) if moment is not None]
    return Wake(
        one.flow, turn, id_, one.many + other.many, min(dues, default=None), min(expiries, default=None)
    )


def _storable(text: str | None) -> str | None:
    if text is None or ("\x00" not in text and text.isascii()):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
