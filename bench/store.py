"""store: how fast the embedded store alone is, beside the same row changes written in the plainest way.

The store does them through its writer thread, which also keeps counts, checks every step against the row's
state, and hands every message back. Run alone: ``python -m bench store``.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import raw
from paceline.model.messages import FlowKey, Mark, NewMessage, Settlement
from paceline.stores.sqlite import SqliteStore

ACCOUNTS = 100


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Raw and store in turn, so that both see the same machine; medians."""
    rows = raw.messages(20_000 if quick else 100_000, ACCOUNTS)
    found: dict[str, list[float]] = {"bare": [], "insert": [], "both": [], "add": [], "store": []}
    for turn in range(1 if quick else 3):
        found["bare"].append(raw.bare(folder / f"bare-{turn}.db", rows)[1])
        insert, both = raw.same_rows(folder / f"raw-{turn}.db", rows)
        add, ours = await store(folder / f"store-{turn}.db", rows)
        for name, value in (("insert", insert), ("both", both), ("add", add), ("store", ours)):
            found[name].append(value)
    mid = {name: median(values) for name, values in found.items()}
    unit = "messages/s"
    return [
        {"name": "raw insert", "value": mid["insert"], "unit": unit},
        {"name": "raw claim+finish", "value": mid["both"], "unit": unit},
        {"name": "raw claim+finish, bare tables", "value": mid["bare"], "unit": unit},
        {"name": "store add", "value": mid["add"], "unit": unit, "of": "raw insert"},
        {"name": "store hand_over+settle", "value": mid["store"], "unit": unit, "of": "raw claim+finish"},
    ]


async def store(path: Path, rows: Sequence[NewMessage]) -> tuple[float, float]:
    """Messages a second for add, and for hand_over and settle together, one call at a time."""
    made = SqliteStore(path)
    await made.open(raw.START)
    flows = {
        row.flow: FlowKey("default/noop/default", "default", "", "notification", 5, row.account)
        for row in rows
    }
    begun = time.perf_counter()
    for batch in raw.batches(rows):
        await made.add(batch, list(flows.values()), raw.START)
        flows.clear()
    added = time.perf_counter()
    now = raw.START
    for batch in raw.batches(rows):
        now += 20
        given = await made.hand_over([Mark(r.id, r.flow, r.account, now) for r in batch], now)
        ends = [
            Settlement(
                h.id, h.number, "accept", 5, h.due_at, h.turn, 1, now, now + 10, "Accepted", reference="noop"
            )
            for h in given
        ]
        assert len(ends) == len(batch)
        assert not await made.settle(ends, [], [], [], now)
    done = time.perf_counter()
    await made.close()
    return len(rows) / (added - begun), len(rows) / (done - added)
