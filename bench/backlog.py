"""backlog: what one dispatch costs with 10,000 and with 1,000,000 messages waiting, and how memory grows."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from bench.engine import Engine, text_of

ACCOUNTS = 100
SENDS = 8000


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The same number of sends is timed at both sizes."""
    small, large = (10_000, 50_000) if quick else (10_000, 1_000_000)
    engine = Engine(folder)
    await engine.open(ACCOUNTS, ["1000000/s"])
    # A first round warms up caches and code, so that both sizes are timed alike.
    await engine.fill(small + SENDS, lambda index: text_of(index, ACCOUNTS))
    await _sends(engine)
    await engine.fill(SENDS, lambda index: text_of(index, ACCOUNTS))
    few, memory_few = await _sends(engine), _memory()
    await engine.fill(large - small + SENDS, lambda index: text_of(index, ACCOUNTS))
    await _sends(engine)
    many, memory_many = await _sends(engine), _memory()
    await engine.close()
    return [
        {"name": f"backlog cost at {small:,}", "value": few, "unit": "us/message"},
        {"name": f"backlog cost at {large:,}", "value": many, "unit": "us/message"},
        {"name": "backlog cost ratio", "value": many / few, "unit": "x", "goal": "<= 1.3"},
        {"name": "backlog memory growth", "value": memory_many - memory_few, "unit": "MiB", "goal": "< 100"},
    ]


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
