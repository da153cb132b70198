"""E25: a million messages scheduled and a million waiting, ten thousand accounts at their limits, restarts, faults."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.soak import Plan, soak

ACCOUNTS, WAITING, SCHEDULED, FULL_S = 10_000, 1_000_000, 1_000_000, 1800
"""At size 1. Beyond it only the time grows: size 16 runs for eight hours."""
MOST_MIB = 250
HELD = 100_000
"""Messages that the lanes hold in memory at most, by `pacing.flows.Prefetch`, without what arrives meanwhile."""
ENTRY_BYTES = 400
CACHES_MIB = 24
"""What the page caches and the allocator take when there is something to read, at any size of the backlog."""
FILLING_MIB = 60
"""The same while a store is being filled: what the first third left free of the writer's cache of 40 MiB."""


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    part = min(1.0, scale.size)
    plan = Plan(
        accounts=max(200, round(ACCOUNTS * part)),
        waiting=max(150_000, round(WAITING * part)),
        scheduled=max(20_000, round(SCHEDULED * part)),
        seconds=max(30.0, FULL_S * scale.size),
    )
    found = soak(folder, plan, scale.seed, broken)
    # Of a small store all of the small flows is held: no more than that may be told from a store without messages.
    held = min(HELD, plan.waiting // 5 + 10 * 256)
    backlog = CACHES_MIB + held * ENTRY_BYTES / 1024 / 1024
    return [
        no_less("sent", found.sent, plan.accounts, " messages"),
        no_more("stored other than acknowledged", abs(found.stored - found.acknowledged), 0),
        no_more("sent twice", found.twice, 0),
        no_more("memory, at most", round(found.rss_most, 1), MOST_MIB, " MiB"),
        no_more("memory after a start, more than without messages", round(found.rss_full - found.rss_empty, 1),
                round(backlog, 1), " MiB"),
        no_more("memory grown while it was filled, after the first third", round(found.rss_filling, 1),
                FILLING_MIB, " MiB"),
        no_more(f"memory grown in {plan.seconds:.0f} s, after warming up", round(found.grown, 1),
                scale.timing(4, 8), " MiB"),
        no_more("files open more than while warming up", max(0, found.more_files), 8),
        no_more("threads more than while warming up", max(0, found.more_threads), 2),
        no_more("start to ready, at most", round(max(found.starts), 2), scale.timing(5, 10), " s", timing=True),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E25",
    title="memory with a full store, many accounts, faults and restarts",
    run=run,
    breaks={
        "prefetch-everything": "lanes hold all that waits, not a budget of it",
        "endless-events": "every event is remembered with its whole message, for those who may come back",
    },
    needs=("linux",),
)
