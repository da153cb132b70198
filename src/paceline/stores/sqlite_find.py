"""Searches for messages: the one place where SQL is put together, from constant pieces; values are bound.

A search visits ids, newest first or oldest first, by the best way there is: the ids themselves, the
recipient, a label with an index, the states, or all messages.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from paceline.model.ids import first_of
from paceline.stores.base import Filter
from paceline.stores.sqlite_schema import Session

_DAY_MS = 86_400_000

# A message belongs to the account it is pinned to, or else to the one that has (last) sent it.
_COLUMNS = {
    "tenant": "m.tenant", "queue": "m.queue", "channel": "m.channel", "pool": "m.pool",
    "account": "iif(m.account <> '', m.account, e.sender)", "campaign": "m.campaign", "batch": "m.batch",
    "code": "(SELECT iif(count(*), max(a.code), m.code) FROM attempt AS a"
            " WHERE a.message = m.id AND a.number = e.number)",
    "group": 'm."group"', "source": "m.source", "kind": "m.kind", "priority": "m.priority", "ids": "m.id",
}  # fmt: skip
_FLOW_COLUMNS = {"tenant": "f.tenant", "queue": "f.queue", "campaign": "f.campaign", "priority": "f.priority"}
_MATCHES_TEXT = (
    r"(m.recipient LIKE ? ESCAPE '\' OR m.content LIKE ? ESCAPE '\' OR m.metadata LIKE ? ESCAPE '\')"
)
_FROM_MESSAGES = "message AS m CROSS JOIN entry AS e ON e.id = m.id"
_JOINED = " CROSS JOIN message AS m ON m.id = e.id WHERE "
_PENDING = f"entry AS e INDEXED BY entry_pending{_JOINED}e.state = 2"
_DUE = f"entry AS e INDEXED BY entry_due{_JOINED}e.state IN (1, 4)"
_LISTED = f"entry AS e INDEXED BY entry_state{_JOINED}e.state IN (3, 6, 7, 8, 9)"
# How to find the messages of a state. Waiting ones are sorted after they are found: there may be many, but
# walking their narrow index takes far less than walking everything that is completed since.
_BY_STATE = {
    1: f"{_DUE} AND e.state = 1", 2: _PENDING, 4: f"{_DUE} AND e.state = 4",
    3: f"{_LISTED} AND e.state = 3", 6: f"{_LISTED} AND e.state = 6", 7: f"{_LISTED} AND e.state = 7",
    8: f"{_LISTED} AND e.state = 8", 9: f"{_LISTED} AND e.state = 9",
}  # fmt: skip
_FROM_ENTRIES = "entry AS e CROSS JOIN message AS m ON m.id = e.id"
_FROM_RECIPIENT = (
    "stretch CROSS JOIN message AS m INDEXED BY message_recipient"
    " ON m.id >> 37 = stretch.number AND m.recipient = ? CROSS JOIN entry AS e ON e.id = m.id"
)
# From each stretch of ids to the next one that has a message.
_STRETCHES = (
    "WITH RECURSIVE stretch (number) AS (SELECT max(id) >> 37 FROM message UNION ALL"
    " SELECT (SELECT max(id) >> 37 FROM message WHERE id < number << 37) FROM stretch WHERE number IS NOT NULL) "
)
_INDEXED_LABELS = {
    "batch": "message AS m INDEXED BY message_batch CROSS JOIN entry AS e ON e.id = m.id",
    "campaign": "message AS m INDEXED BY message_campaign CROSS JOIN entry AS e ON e.id = m.id",
    "group": "message AS m INDEXED BY message_group CROSS JOIN entry AS e ON e.id = m.id",
}

_read_ids = msgspec.json.Decoder(list[int]).decode
_read_counts = msgspec.json.Decoder(list[tuple[int, int]]).decode


class _Where:
    """Conditions with their values, in order."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.values: list[Any] = []

    def add(self, part: str, *values: Any) -> None:
        self.parts.append(part)
        self.values += values

    def one_of(self, column: str, values: Iterable[Any]) -> None:
        given = list(values)
        if len(given) == 1:
            self.add(f"{column} = ?", given[0])
        else:
            texts = msgspec.json.encode(given).decode()
            self.add(column + " IN (SELECT value FROM json_each(?))", texts)  # noqa: S608 - made of constants of ours, values are bound

    def __str__(self) -> str:
        return " AND ".join(self.parts) or "true"


def find_ids(session: Session, wanted: Filter, before: int | None, limit: int, *, oldest: bool = False,
             finished_before: int | None = None) -> list[int]:  # fmt: skip
    """Ids of matching messages, newest (or oldest) first, at most `limit`."""
    where = _conditions(wanted)
    if before is not None:
        where.add("m.id < ?", before)
    if finished_before is not None:
        where.add("e.finished_at < ?", finished_before)
        where.add("m.id < ?", first_of(finished_before))
    order = "ASC" if oldest else "DESC"
    prefix, arms, values = _arms(wanted, where)
    inner = " UNION ALL ".join(
        f"SELECT id FROM (SELECT m.id AS id FROM {arm} ORDER BY m.id {order} LIMIT {limit:d})"  # noqa: S608 - made of constants of ours, values are bound
        for arm in arms
    )
    sql = f"{prefix}SELECT json_group_array(id ORDER BY id {order}) FROM (SELECT id FROM ({inner}) ORDER BY id {order} LIMIT {limit:d})"  # noqa: S608 - constant pieces
    return _read_ids(session.connection.execute(sql, values).get)


def count(session: Session, wanted: Filter) -> dict[int, int]:
    """Matching messages by state: from the exact counts where they know enough, else by visiting them."""
    if _only_flow_parts(wanted):
        return _count_flows(session, wanted)
    prefix, arms, values = _arms(wanted, _conditions(wanted))
    inner = " UNION ALL ".join(f"SELECT e.state AS state FROM {arm}" for arm in arms)  # noqa: S608 - constant pieces
    sql = (
        f"{prefix}SELECT json_group_array(json_array(state, many)) FROM"  # noqa: S608 - constant pieces
        f" (SELECT state, count(*) AS many FROM ({inner}) GROUP BY state ORDER BY state)"
    )
    return dict(_read_counts(session.connection.execute(sql, values).get))


def _count_flows(session: Session, wanted: Filter) -> dict[int, int]:
    where = _Where()
    for part, column in _FLOW_COLUMNS.items():
        if getattr(wanted, part):
            where.one_of(column, getattr(wanted, part))
    if wanted.state:
        where.one_of("t.state", wanted.state)
    sql = (
        "SELECT json_group_array(json_array(state, many)) FROM (SELECT t.state AS state, sum(t.count) AS many"  # noqa: S608 - made of constants of ours, values are bound
        f" FROM counted AS t JOIN flow AS f ON f.number = t.flow WHERE {where} GROUP BY t.state ORDER BY t.state)"
    )
    return dict(_read_counts(session.connection.execute(sql, where.values).get))


def _only_flow_parts(wanted: Filter) -> bool:
    given = {name for name in wanted.__struct_fields__ if getattr(wanted, name) not in ((), None)}
    # An empty campaign means "none" in a flow, but cannot be asked for by its label.
    return given <= {*_FLOW_COLUMNS, "state"} and "" not in wanted.campaign


def _arms(wanted: Filter, where: _Where) -> tuple[str, list[str], list[Any]]:
    """What to put before the SELECT, the FROM ... WHERE of each arm, and all their values."""
    if wanted.ids:
        return "", [f"{_FROM_MESSAGES} WHERE {where}{_states(wanted, where)}"], where.values
    if wanted.to:
        tail = _states(wanted, where)
        arms = [f"{_FROM_RECIPIENT} WHERE {where}{tail}" for _ in wanted.to]
        return _STRETCHES, arms, [value for to in wanted.to for value in (to, *where.values)]
    for label, source in _INDEXED_LABELS.items():
        if getattr(wanted, label):
            return "", [f"{source} WHERE {where}{_states(wanted, where)}"], where.values
    if wanted.state and _BY_STATE.keys() >= set(wanted.state):
        arms = [f"{_BY_STATE[state]} AND {where}" for state in dict.fromkeys(wanted.state)]
        return "", arms, where.values * len(arms)
    return "", [f"{_FROM_ENTRIES} WHERE {where}{_states(wanted, where)}"], where.values


def _states(wanted: Filter, where: _Where) -> str:
    """States as one more condition behind `where`; their values join its values."""
    if not wanted.state:
        return ""
    where.values.append(msgspec.json.encode(wanted.state).decode())
    return " AND +e.state IN (SELECT value FROM json_each(?))"


def _conditions(wanted: Filter) -> _Where:
    """Everything but states and recipient, which decide how the search goes."""
    where = _Where()
    for part, column in _COLUMNS.items():
        if getattr(wanted, part):
            where.one_of(column, getattr(wanted, part))
    if wanted.ids and wanted.to:
        where.one_of("m.recipient", wanted.to)
    if wanted.created_from is not None:
        # An id is made at its creation or, when the clock was set back, seems to be made later.
        where.add(
            "m.created_at >= ? AND m.id >= ?", wanted.created_from, first_of(max(0, wanted.created_from))
        )
    if wanted.created_to is not None:
        where.add(
            "m.created_at < ? AND m.id < ?", wanted.created_to, first_of(max(0, wanted.created_to) + _DAY_MS)
        )
    if wanted.q:
        pattern = "%" + wanted.q.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        where.add(_MATCHES_TEXT, pattern, pattern, pattern)
    return where
