"""pacing: 1,000 accounts at 20 per 2 s with work waiting, judged by the moments at which calls arrive."""

import asyncio
import gc
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.engine import Engine, text_of
from paceline.channels.base import Outgoing

MAXIMUM, SPAN = 20, 2.0


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A tenth of the accounts first: what the limit lets through there leaves the machine room to spare."""
    if quick:
        return await pace(folder, 100, 6)
    return [*await pace(folder, 100, 20), *await pace(folder, 1000, 20)]


async def pace(folder: Path, accounts: int, seconds: int) -> list[dict[str, Any]]:
    """Violations have to be 0; use is what was sent of what the limit permitted in the time."""
    folder = folder / str(accounts)
    folder.mkdir()
    engine = Engine(folder, in_flight=4000)
    await engine.open(accounts, [f"{MAXIMUM}/{SPAN:g}s"], concurrency=MAXIMUM)
    await engine.fill(
        round(accounts * MAXIMUM * (seconds / SPAN + 3)), lambda index: text_of(index, accounts)
    )
    arrivals: dict[str, list[float]] = defaultdict(list)

    def seen(account: str, _message: Outgoing) -> None:
        arrivals[account].append(time.perf_counter())

    engine.channel.seen = seen
    gc.collect()
    gc.freeze()
    cpu = time.process_time()
    start = time.perf_counter()
    engine.core.dispatcher.start()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    engine.core.dispatcher.pause()
    await engine.close()
    exceeded = sum(_exceeded(moments) for moments in arrivals.values())
    permitted = sent = 0.0
    cycles = []
    for moments in arrivals.values():
        kept = [m for m in moments if m < start + seconds]
        sent += len(kept)
        # From an account's first call on, the limit permits `MAXIMUM` at once and again each `SPAN` later.
        permitted += MAXIMUM * (int((start + seconds - kept[0]) / SPAN) + 1)
        cycles += [b - a for a, b in zip(kept, kept[MAXIMUM:], strict=False)]
    steady = SPAN / (sum(cycles) / len(cycles))
    name = f"pacing {accounts:,},"
    return [
        {"name": f"{name} windows exceeded", "value": exceeded, "unit": "windows", "goal": "0"},
        {"name": f"{name} use (steady)", "value": steady * 100, "unit": "%", "goal": ">= 99"},
        {"name": f"{name} use (from first call)", "value": sent / permitted * 100, "unit": "%"},
        {"name": f"{name} sent", "value": sent / seconds, "unit": "messages/s"},
        {"name": f"{name} CPU", "value": cpu / seconds, "unit": "cores"},
    ]


def _exceeded(moments: list[float]) -> int:
    return sum(later - earlier < SPAN for earlier, later in zip(moments, moments[MAXIMUM:], strict=False))
