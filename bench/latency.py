"""latency: from the call that takes a message in (durable) to the channel's call, at 50 messages a second."""

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.engine import Engine, text_of
from paceline.channels.base import Outgoing

RATE = 50


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """One at a time, like a server with little to do."""
    seconds = 3 if quick else 20
    engine = Engine(folder)
    await engine.open(10, ["1000000/s"])
    engine.core.dispatcher.start()
    begun: dict[str, float] = {}
    took: list[float] = []
    done = asyncio.Event()
    total = RATE * seconds

    def seen(_account: str, message: Outgoing) -> None:
        took.append((time.perf_counter() - begun[message.metadata["n"]]) * 1000)
        if len(took) == total:
            done.set()

    engine.channel.seen = seen
    first = time.perf_counter()
    for index in range(total):
        await asyncio.sleep(max(0.0, first + index / RATE - time.perf_counter()))
        begun[str(index)] = time.perf_counter()
        await engine.fill(1, lambda _i, n=index: text_of(n, 10) | {"metadata": {"n": str(n)}})  # type: ignore[misc]  # bound now
    await asyncio.wait_for(done.wait(), 10)
    await engine.close()
    took.sort()
    return [
        {"name": "latency p50", "value": took[len(took) // 2], "unit": "ms"},
        {"name": "latency p99", "value": took[int(len(took) * 0.99)], "unit": "ms", "goal": "<= 15"},
    ]
