"""backlog: what one dispatch costs with 10,000 and with 1,000,000 messages waiting, and how memory grows.

Two engines, each with its backlog, send in turn, a few thousand messages a round: so both see the same machine.
"""

import asyncio
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine import Engine, text_of

ACCOUNTS = 100
SENDS = 4000
ROUNDS = 9


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The same number of sends is timed at both sizes, again and again; medians."""
    few, many = (10_000, 50_000) if quick else (10_000, 1_000_000)
    small = await _waiting(folder / "small", few)
    await _sends(small)  # warms up caches and code
    await _fill(small, SENDS)
    large = await _waiting(folder / "large", few)
    await _sends(large)
    before = _memory()
    await _fill(large, many - few + SENDS)
    await _sends(large)
    await _fill(large, SENDS)
    grown = _memory() - before
    costs = []
    for _ in range(3 if quick else ROUNDS):
        costs.append((await _sends(small), await _sends(large)))
        await _fill(small, SENDS)
        await _fill(large, SENDS)
    await small.close()
    await large.close()
    return [
        {"name": f"backlog cost at {few:,}", "value": median(a for a, _ in costs), "unit": "us/message"},
        {"name": f"backlog cost at {many:,}", "value": median(b for _, b in costs), "unit": "us/message"},
        {
            "name": "backlog cost ratio",
            "value": median(b / a for a, b in costs),
            "unit": "x",
            "goal": "<= 1.3",
        },
        {"name": "backlog memory growth", "value": grown, "unit": "MiB", "goal": "< 100"},
    ]


async def _waiting(folder: Path, count: int) -> Engine:
    folder.mkdir()
    engine = Engine(folder)
    await engine.open(ACCOUNTS, ["1000000/s"])
    await _fill(engine, count)
    return engine


async def _fill(engine: Engine, count: int) -> None:
    await engine.fill(count, lambda index: text_of(index, ACCOUNTS))


async def _sends(engine: Engine) -> float:
    target = engine.channel.count + SENDS
    done = asyncio.Event()
    engine.channel.seen = lambda _a, _m: done.set() if engine.channel.count >= target else None
    start = time.perf_counter()
    engine.core.dispatcher.start()
    await done.wait()
    elapsed = time.perf_counter() - start
    engine.core.dispatcher.pause()
    while engine.core.agenda.out:
        await asyncio.sleep(0.01)
    return elapsed / SENDS * 1e6


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
