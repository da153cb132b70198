"""E18: the PostgreSQL server is restarted under three nodes at work: fast, at once, by SIGKILL; then its standby is promoted."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.contracts.stores.postgres_standby import Pair
from tests.scenarios.node_figures import Figures
from tests.scenarios.store_storm import ANSWER_S, RECOVERY_S, StoreStorm


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    wanted = scale.count(20, 3) + 1
    servers = Pair()
    try:
        found = StoreStorm(folder, servers, scale.seed, broken=broken).run(wanted)
    finally:
        servers.remove()
    return [
        no_less("restarts of the database, and one fail-over", found.restarts, wanted),
        no_less("requests refused meanwhile (else none met one)", found.refused, wanted),
        no_more(f"not answered within {ANSWER_S:g} s", found.unanswered, 0),
        no_more("refused without a moment to try again", found.without_retry, 0),
        *promises(found),
        no_more("everything goes on after", round(found.slowest(found.recoveries), 2), RECOVERY_S, " s", timing=True),
    ]  # fmt: skip


def promises(found: Figures) -> list[Figure]:
    """What holds whatever happens to the database."""
    return [
        no_less("taken by the provider (else it stood still)", found.taken, 10 * found.faults),
        no_more(f"lost of {found.acknowledged} acknowledged", len(found.lost), 0),
        no_more("sent twice and not flagged", len(found.twice), 0),
        no_more("two calls of one message at once", found.two_hands, 0),
        no_more("arrivals beyond a limit, by the receiver's times", found.exceeded, 0),
        no_more("said to be sent, and not", len(found.false_endings) + len(found.foreign), 0),
        no_more("two messages under one idempotency key", len(found.doubled_keys), 0),
        no_more("broken as the audit of the store says", len(found.audit), 0),
    ]


EXPERIMENT = Experiment(
    id="E18",
    title="the PostgreSQL server is restarted under three nodes that send",
    run=run,
    needs=("postgresql",),
    breaks={
        "looks-nothing-up": "a commit whose answer was lost counts as not made, without a look",
        "gives-up": "a connection that was lost is not opened again",
    },
)
