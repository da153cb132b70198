"""E18: the PostgreSQL server is restarted under three nodes at work: fast, at once, by SIGKILL; then its standby is promoted."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.node_promises import promises
from tests.contracts.stores.postgres_standby import Pair
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
