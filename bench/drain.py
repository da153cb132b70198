"""drain: messages over 100 accounts with limits that do not bind, through the real dispatcher, all durable."""

import asyncio
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine import Engine, text_of

ACCOUNTS = 100


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Fill first, then start the dispatcher: the rate from the first call to the last durable ending."""
    count = 20_000 if quick else 200_000
    engine = Engine(folder)
    await engine.open(ACCOUNTS, ["1000000/s"], concurrency=None)
    start = time.perf_counter()
    await engine.fill(count, lambda index: text_of(index, ACCOUNTS))
    filled = count / (time.perf_counter() - start)
    settled = asyncio.Event()
    left = count

    def tell(ended: Sequence[Any]) -> None:
        nonlocal left
        left -= len(ended)
        if not left:
            settled.set()

    engine.core.happenings.when_settled.append(tell)
    gc.collect()
    gc.freeze()
    start, cpu = time.perf_counter(), time.process_time()
    engine.core.dispatcher.start()
    await settled.wait()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    await engine.close()
    return [
        {"name": "fill (batches of 1,000)", "value": filled, "unit": "messages/s"},
        {
            "name": "drain",
            "value": count / elapsed,
            "unit": "messages/s",
            "of": "raw claim+finish",
            "goal": ">= 0.2",
        },
        {"name": "drain CPU", "value": cpu / count * 1e6, "unit": "us/message"},
    ]
