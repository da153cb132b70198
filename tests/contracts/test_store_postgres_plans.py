"""The plans of the statements that run all the time: by index to what is named, however much there is beside it.

Also after a VACUUM of an empty table whose dead rows a transaction keeps: for the planner that is a table of one row.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_session import QUICK, WRITING, Session, connect
from paceline.stores.statements import load_statements
from tests.contracts.stores.making import NOW
from tests.contracts.stores.postgres_server import execute, url_for

ROWS = 60_000
_BIG = {
    "message",
    "waiting",
    "ended",
    "attempt",
    "idempotency",
    "flow",
    "place_free",
    "place_held",
    "place_made",
}
_SMALL = {"under_way_pkey", "wide_name_key"}
_ENTRY = {"waiting_pkey", "under_way_pkey", "ended_pkey"}
# The indexes by which each statement may find its rows. Another one can be as good as none: that of what is pending
# has all that is pending.
_WRITTEN = {
    "hand_over": {"waiting_pkey", "message_pkey"},
    "settle": {"under_way_pkey", "message_pkey", "wide_pkey", "wide_name_key"},
    "take_places": {"place_free_pkey"},
    "known_places": {"place_made_pkey"},
    "more_places": {"place_made_pkey", "wide_pkey"},
    "end_places": {"place_held_pkey", "wide_pkey", "wide_name_key"},
    "next_places": {"place_free_pkey"},
    "forget_places": {"place_free_pkey", "place_made_pkey"},
    "known_keys": {"idempotency_pkey"},
    "promote": {"waiting_due", "waiting_pkey", "message_pkey"},
    "next_due": {"waiting_due"},
    "expire": {"waiting_expiry", "waiting_pkey", "message_pkey"},
    "next_expiry": {"waiting_expiry"},
    "revise": {*_ENTRY, "message_pkey", "idempotency_pkey"},
    "clean": {"ended_pkey", "message_pkey", "idempotency_pkey"},
    "clean_journal": {*_ENTRY, "message_pkey", "attempt_pkey", "account_note_pkey"},
}
_READ = {
    "entries": {"waiting_pending", "message_pkey"},
    "get": {*_ENTRY, "message_pkey", "attempt_pkey"},
    "attempts": {"attempt_pkey", "under_way_pkey"},
    "occupancy_of": {"attempt_account"},
    "ahead": {"waiting_pending"},
    "processing": {"under_way_pkey", "message_pkey"},
}
_FILL = """
INSERT INTO flow SELECT n, 'a/b/c', 'a', '', 'q', 5, '' FROM generate_series(1, 2000) AS n;
INSERT INTO message (id, created_at, tenant, queue, channel, account, pool, recipient, priority, max_attempts, timeout_ms,
                     content, trace_id, idempotency_key)
SELECT n, 1, 'a', 'q', 'c', '', '', 'r' || n, 5, 3, 1, '{}', 't', 'k' || n FROM generate_series(1, %(rows)s * 2) AS n;
INSERT INTO idempotency SELECT 'a', 'k' || n, n, '' FROM generate_series(1, %(rows)s) AS n;
INSERT INTO waiting (id, flow, state, number, attempts, due_at, turn, expires_at, sender)
SELECT n, n %% 2000, (ARRAY[1, 2, 2, 2, 4])[n %% 5 + 1], 0, 0, n, 0, CASE WHEN n %% 3 = 0 THEN n END, ''
FROM generate_series(1, %(rows)s) AS n;
INSERT INTO ended (id, flow, state, number, attempts, due_at, turn, sender, finished_at)
SELECT n, 1, 5 + n %% 5, 1, 1, 1, 1, 's', n FROM generate_series(%(rows)s + 1, %(rows)s * 2) AS n;
INSERT INTO attempt (message, number, flow, account, recipient, handed_over, started, finished, outcome)
SELECT n, 1, 1, 's' || n %% 100, 'r', 1, 1, n, 'Accepted' FROM generate_series(%(rows)s + 1, %(rows)s * 2) AS n;
INSERT INTO place_free SELECT n %% 3, '', n, n, 0 FROM generate_series(1, %(rows)s) AS n;
INSERT INTO place_held SELECT n, 1, '', n FROM generate_series(1, %(rows)s) AS n;
INSERT INTO place_made SELECT 1, sha256(n::text::bytea), n, 0 FROM generate_series(1, %(rows)s) AS n;
"""


_EMPTY = """
INSERT INTO under_way SELECT id, flow, number, attempts, due_at, turn, expires_at, sender, 1 FROM waiting;
DELETE FROM waiting;
DELETE FROM under_way;
"""


@pytest.fixture(params=["full", "empty", "never", "dead"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    """A store with much in it, whose tables were analysed while they were full, while they were empty, or never; or in which all that
    waited and was under way is gone, and cannot be cleaned up."""
    made = PostgresStore(url_for(tmp_path))
    await made.open(NOW)
    base, _, schema = url_for(tmp_path).partition("?schema=")
    tables = ("message", "waiting", "ended", "attempt", "idempotency", "flow", "under_way", "tally",
              "place_free", "place_held", "place_made")  # fmt: skip
    analyse = [f"ANALYZE {schema}.{table}" for table in tables]
    await execute(
        base,
        f"SET search_path = {schema}",
        *(analyse if request.param == "empty" else []),
        _FILL % {"rows": ROWS},
        *(analyse if request.param == "full" else []),
    )
    keeper = await asyncpg.connect(base)
    if request.param == "dead":
        await keeper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        await execute(base, f"SET search_path = {schema}", _EMPTY)
        for table in ("waiting", "under_way"):
            await execute(base, f"VACUUM {schema}.{table}")
    yield made
    await keeper.close()
    await made.close()


async def plan(session: Session, name: str) -> Any:
    """The plan that is used whatever the values are."""
    text = load_statements("postgres")[name].sql
    many = max([int(number) for number in re.findall(r"\$(\d+)", text)], default=0)
    await session.connection.execute(f"PREPARE asked AS {text}")
    given = f"({', '.join(['NULL'] * many)})" if many else ""
    found = await session.connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked{given}")
    await session.connection.execute("DEALLOCATE asked")
    return json.loads(found)[0]["Plan"]


def nodes(node: Any, above: str = "") -> Iterator[tuple[Any, str]]:
    """Every step, with the kind of the one above it."""
    yield node, above
    for child in node.get("Plans", ()):
        yield from nodes(child, node["Node Type"])


def bad_steps(found: Any, allowed: set[str]) -> list[str]:
    """Steps that visit a whole table, a whole index (and not just its first place), or the wrong index."""
    bad = []
    for node, above in nodes(found):
        kind, index = node["Node Type"], node.get("Index Name")
        if kind == "Seq Scan" and node["Relation Name"] in _BIG:
            bad.append(f"{kind} of {node['Relation Name']}")
        whole = "Index Cond" not in node and above != "Limit" and index not in _SMALL
        if index is not None and (index not in allowed or whole):
            bad.append(f"{kind} by {index}")
        if "Sort" in kind and above == "Limit" and visits(node):
            bad.append("a sort of all for the first few")
    return bad


def visits(node: Any) -> bool:
    """Whether a big table is read below this step with no limit in between."""
    if node["Node Type"] == "Limit":
        return False
    return node.get("Relation Name") in _BIG or any(visits(child) for child in node.get("Plans", ()))


async def test_no_statement_of_writer_and_lanes_visits_more_than_it_has_to(store: PostgresStore) -> None:
    for settings, statements in ((WRITING, _WRITTEN), (QUICK, _READ)):
        session = await connect(store.address, "plans", settings)
        try:
            bad = {
                name: bad_steps(await plan(session, name), allowed) for name, allowed in statements.items()
            }
        finally:
            await session.close()
        assert {name: steps for name, steps in bad.items() if steps} == {}
