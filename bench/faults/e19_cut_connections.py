"""E19: single connections of nodes are ended by the database: of those that listen, write, and hold the lease."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.node_promises import promises
from tests.contracts.stores.postgres_server import PrivateServer
from tests.scenarios.store_storm import ANSWER_S, CONNECTIONS, PICKUP_S, RECOVERY_S, CutStorm


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    wanted = scale.count(200 * len(CONNECTIONS), 2 * len(CONNECTIONS))
    # Every commit takes a while, so that many connections are cut while a node waits for its answer.
    server = PrivateServer("commit_delay=20000", "commit_siblings=0")
    try:
        found = CutStorm(folder, server.url, scale.seed, broken=broken).run(wanted, low=0.05, high=0.3)
    finally:
        server.remove()
    return [
        no_less("connections cut", found.cuts, wanted),
        no_more(f"not answered within {ANSWER_S:g} s", found.unanswered, 0),
        no_more("refused without a moment to try again", found.without_retry, 0),
        *promises(found),
        no_more("everything goes on after", round(found.slowest(found.recoveries), 2), RECOVERY_S, " s", timing=True),
        no_more("then sent by whichever node sends it, 99th of 100", round(found.slowest(found.pickups), 2),
                scale.timing(PICKUP_S, 3 * PICKUP_S), " s", timing=True),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E19",
    title="connections to PostgreSQL are cut: of the listener, the writer in its commit, the lease",
    run=run,
    needs=("postgresql",),
    breaks={
        "looks-nothing-up": "a commit whose answer was lost counts as not made, without a look",
        "hears-no-more": "a connection that listens and looks is not opened again once it was lost",
    },
)
