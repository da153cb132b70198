"""A database of its own for each measurement on PostgreSQL, and rows put straight into the tables.

The server is that of TEST_POSTGRES_URL, or the one on the usual port of this machine.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.engine import text_of
from paceline.model.messages import FlowKey
from paceline.model.nodes import PARTITIONS
from paceline.stores.postgres import PostgresStore

USUAL = "postgresql://postgres@127.0.0.1:5432/postgres"
SCHEMA = "paceline"
ACCOUNTS = 100
_PART = 100_000
"""Rows of one INSERT."""

_FILL = """
WITH line AS (
  SELECT n, flow[n % cardinality(flow) + 1] AS flow, n % cardinality(flow) AS account
  FROM generate_series($1::bigint, $2::bigint - 1) AS n, (SELECT $3::bigint[] AS flow) AS flows
),
made AS (
  INSERT INTO message (id, created_at, tenant, queue, channel, account, pool, recipient, priority, max_attempts, timeout_ms,
                       content, trace_id)
  SELECT $4::bigint + n, $5, 'default', 'notification', 'noop', 'default/a' || account, '', 'r' || n, 5, 3, 30000, $6,
         lpad(to_hex(n), 32, '0')
  FROM line
)
INSERT INTO waiting (id, flow, state, number, attempts, due_at, turn, sender)
SELECT $4::bigint + n, flow, 2, 0, 0, $5, $5::bigint + n / 10, '' FROM line
"""
_COUNT = """
INSERT INTO tally (flow, sender, state, slot, count) SELECT flow, '', 2, 0, $2 FROM unnest($1::bigint[]) AS flow
ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
"""
_FLOWS = """
INSERT INTO flow (number, lane, tenant, campaign, queue, priority, account)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[])
ON CONFLICT DO NOTHING
"""


class NoServerError(Exception):
    """There is no server to measure."""


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """The URL of a new database, dropped afterwards.

    Raises:
        NoServerError: nothing answers.
    """
    server = os.environ.get("TEST_POSTGRES_URL") or USUAL
    name = f"paceline_bench_{secrets.token_hex(6)}"
    try:
        await execute(server, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NoServerError(
            f"no PostgreSQL server at {urlsplit(server).hostname} (TEST_POSTGRES_URL names one): {error}"
        ) from None
    parts = urlsplit(server)
    try:
        yield urlunsplit((parts.scheme, parts.netloc, f"/{name}", "", ""))
    finally:
        await execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def execute(url: str, *statements: str) -> None:
    """Run some statements, each by itself."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=600)
    finally:
        await connection.close()


async def make(url: str, now: int, schema: str = SCHEMA) -> str:
    """A schema of that name with the product's tables; the URL of the store."""
    store = PostgresStore(f"{url}?schema={schema}")
    await store.open(now)
    await store.close()
    return f"{url}?schema={schema}"


def flow_of(account: int, pools: int) -> FlowKey:
    """The flow of an account's messages: its pool, and so its lane, is one of `pools`."""
    return FlowKey(
        f"default/noop/p{account % pools}", "default", "", "notification", 5, f"default/a{account}"
    )


async def fill(url: str, count: int, now: int, *, pools: int = ACCOUNTS, first: int = 0) -> None:
    """Put `count` pending messages into the tables, to the accounts in turn, as the product would; then VACUUM ANALYZE.

    `first` is the number of the first one, where others were put there before.
    """
    base, _, schema = url.partition("?schema=")
    connection = await asyncpg.connect(base, server_settings={"search_path": schema}, command_timeout=600)
    keys = [flow_of(account, pools) for account in range(ACCOUNTS)]
    flows = [key.number for key in keys]
    columns = zip(*[(k.number, k.lane, k.tenant, k.campaign, k.queue, k.priority, k.account) for k in keys],
                  strict=True)  # fmt: skip
    content = '{"text":"' + text_of(0, ACCOUNTS)["text"] + '"}'
    begin = (now - 86_400_000) << 21  # ids of a day ago
    try:
        await connection.execute(_FLOWS, *map(list, columns))
        for start in range(first, first + count, _PART):
            end = min(start + _PART, first + count)
            await connection.execute(_FILL, start, end, flows, begin, now - 86_400_000, content)
        await connection.execute(_COUNT, flows, count // ACCOUNTS)
        await connection.execute(
            "UPDATE fence SET greatest_id = greatest(greatest_id, $1)", begin + first + count
        )
        for table in ("message", "waiting", "tally"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        await connection.close()


def parts_of(accounts: int, pools: int) -> set[int]:
    """The partitions that these accounts' lanes fall into."""
    return {flow_of(account, pools).number % PARTITIONS for account in range(accounts)}
