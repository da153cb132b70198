"""drain: messages over 100 accounts with limits that do not bind, through the real dispatcher, all durable."""

import asyncio
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import raw
from bench.engine import Engine, text_of

ACCOUNTS = 100


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The raw loop before and after each drain, so that the ratio is one of the same machine; medians."""
    count = 20_000 if quick else 200_000
    rows = raw.messages(count // 4, ACCOUNTS)
    drains, raws, ratios, costs = [], [_raw(folder, rows)], [], []
    for _ in range(1 if quick else 3):
        rate, cost = await drain(folder, count)
        raws.append(_raw(folder, rows))
        drains.append(rate)
        costs.append(cost)
        ratios.append(rate / (sum(raws[-2:]) / 2))
    return [
        {"name": "raw, beside the drain", "value": median(raws), "unit": "messages/s"},
        {"name": "drain", "value": median(drains), "unit": "messages/s", "ratio": round(median(ratios), 3),
         "of": "raw, beside the drain", "goal": ">= 0.2"},
        {"name": "drain CPU", "value": median(costs) * 1e6, "unit": "us/message"},
    ]  # fmt: skip


def _raw(folder: Path, rows: Sequence[Any]) -> float:
    path = folder / f"raw-{time.monotonic_ns()}.db"
    return raw.same_rows(path, rows)[1]


async def drain(folder: Path, count: int) -> tuple[float, float]:
    """Fill first, then start the dispatcher: messages a second from the first call to the last durable ending."""
    own = folder / f"drain-{time.monotonic_ns()}"
    own.mkdir()
    engine = Engine(own)
    await engine.open(ACCOUNTS, ["1000000/s"], concurrency=None)
    await engine.fill(count, lambda index: text_of(index, ACCOUNTS))
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
    gc.unfreeze()
    return count / elapsed, cpu / count
