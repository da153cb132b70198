"""E24: eight writers, the dispatcher, four dashboards, the command line and one slow export at the same database."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.contention import contention

FULL_S, LEAST_S = 1800, 20
WAL_MIB = 64


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    seconds = scale.count(FULL_S, LEAST_S)
    found = contention(folder, seconds, scale.seed, broken)
    told = f" ({found.errors[0][:120]})" if found.errors else ""
    return [
        no_less("acknowledged", found.acknowledged, seconds * 10, " messages"),
        no_less("read, beside the export", found.reads, seconds, " answers"),
        no_less("lines of the export that lasted for all of it", found.exported, 100),
        no_more(f"errors that reached a caller{told}", len(found.errors), 0),
        no_more("lost", len(found.lost), 0),
        no_more("sent twice", found.twice, 0),
        no_more("write-ahead log", round(found.wal_mib, 1), WAL_MIB, " MiB"),
        no_more("write, 99th of 100", round(found.write_p99, 1), scale.timing(50, 400), " ms", timing=True),
    ]


EXPERIMENT = Experiment(
    id="E24",
    title="everybody at the database at once, and a slow export",
    run=run,
    breaks={
        "export-holds-snapshot": "an export reads in one transaction, which stays open for as long as the client reads",
        "no-checkpoints": "nobody moves the write-ahead log into the database",
        "deferred-writes": "each intake also writes on a second connection that reads first, without BEGIN IMMEDIATE",
    },
)
