"""E15: very many messages due in the same second, after a stop that spans the moment."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.due import ACCOUNTS, BEFORE_URGENT, URGENT, due_at_once

RATE = 25
CACHES_MIB = 64 + 2 * 16
"""What the pages of a database that is larger than them take in the caches of the writer and of two readers."""


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    messages = scale.count(100_000, 2_000)
    found = due_at_once(folder, messages, RATE, broken)
    grown = found.rss_most - found.rss_ready
    return [
        no_less("due in the same second", found.messages, messages),
        no_more(f"expired ones sent, of {found.expiring}", len(found.expired_sent), 0),
        no_more("expired ones not told as expired", found.expiring - found.expired, 0),
        no_more("sent before they were due", found.early, 0),
        no_more("lost", found.lost, 0),
        no_more("sent twice", found.twice, 0),
        no_more("fullest window as a share of its limit", found.ratio, 1.0),
        no_more(f"went before one of {URGENT} urgent newcomers", max(found.overtaken), BEFORE_URGENT, " messages"),
        no_more("first send after ready", round(max(0, found.first_s), 2), scale.timing(1, 3), " s", timing=True),
        no_less(f"share of the limit used in the first second, worst of {ACCOUNTS} accounts",
                found.first_second, scale.timing(0.9, 0.5), timing=True),
        no_more(f"memory grown while it drained (most {found.rss_most:.0f} MiB)", round(grown, 1), CACHES_MIB, " MiB"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E15",
    title="very many due in one second, after a stop that spans it",
    run=run,
    breaks={
        "send-expired": "expires_at is forgotten at intake",
        "no-priorities": "every message has the same priority",
        "short-windows": "every window is a tenth shorter than its limit",
    },
    needs=("linux",),
)
