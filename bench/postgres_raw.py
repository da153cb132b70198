"""The plainest way to write what a message writes, in PostgreSQL: what the server can do, for the others to be measured by.

The very row changes of the product in its own tables: out of `waiting` into `under_way`, and read the message; out of
`under_way` into `ended`, and the journal line. It knows the ids, counts nothing, checks nothing and waits for nobody.
In batches of 500, each a transaction with a full flush, from arrays through one connection of asyncpg.
"""

import time

from paceline.stores.postgres_address import parse_address
from paceline.stores.postgres_session import WRITING, check_server, connect

BATCH = 500
CLAIM = """
WITH gone AS (DELETE FROM waiting WHERE id = ANY ($1::bigint[]) RETURNING *)
INSERT INTO under_way (id, flow, number, attempts, due_at, turn, expires_at, sender, started_at)
SELECT id, flow, 1, 0, due_at, turn, expires_at, 'default/a1', $2 FROM gone
"""
READ = """
SELECT id, account, tenant, queue, channel, recipient, content, max_attempts, timeout_ms, trace_id, created_at
FROM message WHERE id = ANY ($1::bigint[])
"""
FINISH = """
WITH gone AS (DELETE FROM under_way WHERE id = ANY ($1::bigint[]) RETURNING *),
written AS (
  INSERT INTO attempt (message, number, flow, account, recipient, handed_over, started, finished, outcome, reference)
  SELECT id, 1, flow, sender, 'r1', started_at, started_at, $2, 'Accepted', 'noop' FROM gone
)
INSERT INTO ended (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at)
SELECT id, flow, 5, 1, 1, due_at, turn, expires_at, sender, started_at, $2 FROM gone
"""


async def same_rows(url: str) -> float:
    """Messages a second, claimed and finished, of all that waits in the store."""
    address = parse_address(url)
    session = await connect(address, "paceline bench raw", WRITING)
    await check_server(session, address)
    connection = session.connection
    ids = [id_ for (id_,) in await connection.fetch("SELECT id FROM waiting ORDER BY turn, id")]
    begun = time.perf_counter()
    now = 1_750_000_000_000
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        async with connection.transaction():
            await connection.execute(CLAIM, batch, now)
            assert len(await connection.fetch(READ, batch)) == len(batch)
        async with connection.transaction():
            await connection.execute(FINISH, batch, now)
    took = time.perf_counter() - begun
    await session.close()
    return len(ids) / took
