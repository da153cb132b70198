"""idle: 100,000 limited accounts, each with a message that may not go yet: what does waiting cost?"""

import asyncio
import resource
import time
from pathlib import Path
from typing import Any

from bench.engine import Engine, text_of


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Every account sends one, then waits an hour for the next."""
    accounts, seconds = (2_000, 3) if quick else (100_000, 10)
    engine = Engine(folder)
    await engine.open(accounts, ["1/h"], concurrency=1)
    await engine.fill(2 * accounts, lambda index: text_of(index, accounts))
    sent = asyncio.Event()
    engine.core.bus.tap(lambda _e: sent.set() if engine.channel.count >= accounts else None)
    engine.core.dispatcher.start()
    await sent.wait()
    while engine.core.agenda.out:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    used = (time.process_time() - cpu) / (time.perf_counter() - start)
    await engine.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        {"name": "idle CPU", "value": used * 100, "unit": "% of a core", "goal": "< 2"},
        {"name": "idle memory (peak)", "value": memory, "unit": "MiB"},
    ]
