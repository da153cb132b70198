"""Searches for messages in PostgreSQL: SQL is put together from constant pieces; every value is bound.

A search looks into those of the three tables that can hold the states asked for, newest or oldest first; how it finds
its way is for the database to plan, which has an index for ids, recipient, batch, campaign, group and listed states.
"""

from collections.abc import Iterable
from typing import Any

from paceline.model.ids import first_of
from paceline.stores.base import Filter
from paceline.stores.postgres_session import Session

_DAY_MS = 86_400_000
_GREATEST = 2**63 - 1

# A message belongs to the account it is pinned to, or else to the one that has (last) sent it.
_COLUMNS = {
    "tenant": "m.tenant", "queue": "m.queue", "channel": "m.channel", "pool": "m.pool", "to": "m.recipient",
    "account": "CASE WHEN m.account <> '' THEN m.account ELSE e.sender END", "campaign": "m.campaign",
    "code": "(SELECT CASE WHEN count(*) > 0 THEN max(a.code) ELSE m.code END FROM attempt AS a"
            " WHERE a.message = m.id AND a.number = e.number)",
    "group": 'm."group"', "source": "m.source", "kind": "m.kind",
}  # fmt: skip
_NUMBERS = {"batch": "m.batch", "priority": "m.priority", "ids": "m.id"}
_FLOW_COLUMNS = {"tenant": "f.tenant", "queue": "f.queue", "campaign": "f.campaign"}
_FLOW_NUMBERS = {"priority": "f.priority", "state": "t.state"}
# The tables with the states that are in them, and how each tells a row's state.
_TABLES = {"waiting": (1, 2, 4), "under_way": (3,), "ended": (5, 6, 7, 8, 9)}
_STATE = {"waiting": "e.state", "under_way": "3", "ended": "e.state"}


class _Where:
    """Conditions with their values; a value is named by its place."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.values: list[Any] = []

    def bind(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def one_of(self, column: str, kind: str, values: Iterable[Any]) -> None:
        self.parts.append(f"{column} = ANY ({self.bind(list(values))}::{kind}[])")

    def __str__(self) -> str:
        return " AND ".join(self.parts) or "true"


async def find_ids(session: Session, wanted: Filter, before: int | None, limit: int, *, oldest: bool = False,
                   finished_before: int | None = None) -> list[int]:  # fmt: skip
    """Ids of matching messages, newest (or oldest) first, at most `limit`."""
    where = _conditions(wanted)
    if before is not None:
        where.parts.append(f"m.id < {where.bind(before)}")
    if finished_before is not None:
        where.parts.append(f"e.finished_at < {where.bind(finished_before)}")
        where.parts.append(f"m.id < {where.bind(_bound(finished_before))}")
    order = "ASC" if oldest else "DESC"
    most = where.bind(limit)
    arms = [
        f"(SELECT m.id AS id FROM {arm} ORDER BY m.id {order} LIMIT {most})"  # noqa: S608 - made of constants of ours, values are bound
        for arm in _arms(wanted, where)
    ]
    if not arms:
        return []
    sql = f"SELECT id FROM ({' UNION ALL '.join(arms)}) AS found ORDER BY id {order} LIMIT {most}"  # noqa: S608 - constant pieces
    return [id_ for (id_,) in await session.connection.fetch(sql, *where.values)]


async def count(session: Session, wanted: Filter) -> dict[int, int]:
    """Matching messages by state: from the exact counts where they know enough, else by visiting them."""
    if _only_flow_parts(wanted):
        return await _count_flows(session, wanted)
    where = _conditions(wanted)
    arms = [
        f"SELECT {state} AS state FROM {arm}"  # noqa: S608 - constant pieces
        for state, arm in zip(_states(wanted), _arms(wanted, where), strict=True)
    ]
    if not arms:
        return {}
    sql = f"SELECT state, count(*) FROM ({' UNION ALL '.join(arms)}) AS found GROUP BY state ORDER BY state"  # noqa: S608 - constant pieces
    return dict(await session.connection.fetch(sql, *where.values))


async def _count_flows(session: Session, wanted: Filter) -> dict[int, int]:
    where = _Where()
    for names, kind in ((_FLOW_COLUMNS, "text"), (_FLOW_NUMBERS, "bigint")):
        for part, column in names.items():
            if getattr(wanted, part):
                where.one_of(column, kind, getattr(wanted, part))
    sql = (
        "SELECT t.state, sum(t.count)::bigint FROM counted AS t JOIN flow AS f ON f.number = t.flow"  # noqa: S608 - made of constants of ours, values are bound
        f" WHERE {where} GROUP BY t.state ORDER BY t.state"
    )
    return dict(await session.connection.fetch(sql, *where.values))


def _only_flow_parts(wanted: Filter) -> bool:
    given = {name for name in wanted.__struct_fields__ if getattr(wanted, name) not in ((), None)}
    # An empty campaign means "none" in a flow, but cannot be asked for by its label.
    return given <= {*_FLOW_COLUMNS, *_FLOW_NUMBERS} and "" not in wanted.campaign


def _tables(wanted: Filter) -> list[str]:
    return [
        table
        for table, states in _TABLES.items()
        if not wanted.state or set(states).intersection(wanted.state)
    ]


def _states(wanted: Filter) -> list[str]:
    return [_STATE[table] for table in _tables(wanted)]


def _arms(wanted: Filter, where: _Where) -> list[str]:
    """The FROM ... WHERE of each table that can hold what is wanted."""
    arms = []
    for table in _tables(wanted):
        arm = f"{table} AS e JOIN message AS m ON m.id = e.id WHERE {where}"
        if wanted.state and not set(_TABLES[table]) <= set(wanted.state):
            chosen = sorted(set(_TABLES[table]).intersection(wanted.state))
            # Written out, since they are our own numbers: only then is an index of some states recognised.
            arm += f" AND e.state IN ({', '.join(map(str, chosen))})"
        if table != "ended":
            arm = arm.replace("e.finished_at", "NULL::bigint")
        arms.append(arm)
    return arms


def _conditions(wanted: Filter) -> _Where:
    """Everything but the states, which decide where to look."""
    where = _Where()
    for names, kind in ((_COLUMNS, "text"), (_NUMBERS, "bigint")):
        for part, column in names.items():
            if getattr(wanted, part):
                where.one_of(column, kind, getattr(wanted, part))
    if wanted.created_from is not None:
        # An id is made at its creation or, when the clock was set back, seems to be made later.
        where.parts.append(f"m.created_at >= {where.bind(wanted.created_from)}")
        where.parts.append(f"m.id >= {where.bind(_bound(wanted.created_from))}")
    if wanted.created_to is not None:
        where.parts.append(f"m.created_at < {where.bind(wanted.created_to)}")
        where.parts.append(f"m.id < {where.bind(_bound(wanted.created_to + _DAY_MS))}")
    if wanted.q:
        pattern = "%" + wanted.q.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        place = where.bind(pattern)
        where.parts.append(
            f"(m.recipient ILIKE {place} OR m.content ILIKE {place} OR m.metadata ILIKE {place})"
        )
    return where


def _bound(moment: int) -> int:
    """The smallest id of a millisecond, or the nearest one that there can be."""
    return min(first_of(max(0, moment)), _GREATEST)
