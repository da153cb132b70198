"""The plans of the statements that run all the time: by index to what is named, however much there is beside it."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_session import QUICK, WRITING, Session, connect
from paceline.stores.statements import load_statements
from tests.contracts.stores.making import NOW
from tests.contracts.stores.postgres_server import execute, url_for

ROWS = 60_000
_BIG = {"message", "waiting", "ended", "attempt", "idempotency", "flow"}
_WRITTEN = ["hand_over", "settle", "known_keys", "promote", "next_due", "expire", "next_expiry", "revise", "clean",
            "clean_journal"]  # fmt: skip
_READ = ["entries", "get", "attempts", "occupancy_of", "ahead", "processing"]
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
"""


@pytest.fixture(params=["analysed", "never looked at"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url_for(tmp_path))
    await made.open(NOW)
    base, _, schema = url_for(tmp_path).partition("?schema=")
    await execute(base, f"SET search_path = {schema}; {_FILL % {'rows': ROWS}}")
    if request.param == "analysed":
        await execute(
            base, f"SET search_path = {schema}; ANALYZE message, waiting, ended, attempt, idempotency, flow"
        )
    yield made
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


def bad_nodes(found: Any) -> list[str]:
    """Steps that visit a whole table, or a whole index (and not just its first place)."""
    return [
        f"{node['Node Type']} of {node['Relation Name']}"
        for node, above in nodes(found)
        if node.get("Relation Name") in _BIG
        and (
            node["Node Type"] == "Seq Scan"
            or ("Index" in node["Node Type"] and "Index Cond" not in node and above != "Limit")
        )
    ]


async def test_no_statement_of_writer_and_lanes_visits_a_whole_table(store: PostgresStore) -> None:
    for settings, names in ((WRITING, _WRITTEN), (QUICK, _READ)):
        session = await connect(store.address, "plans", settings)
        try:
            bad = {name: bad_nodes(await plan(session, name)) for name in names}
        finally:
            await session.close()
        assert {name: steps for name, steps in bad.items() if steps} == {}
