"""E02: nodes on one PostgreSQL store are killed and stopped while they send; the others follow."""

from pathlib import Path

from bench.faults.experiment import RECORD, Experiment, Figure, Scale, no_less, no_more
from bench.faults.node_promises import promises
from tests.contracts.stores.postgres_server import PrivateServer
from tests.scenarios.full_storm import ACCOUNTS, FullStorm
from tests.scenarios.node_figures import LEASE_S

FEW = 24
"""Accounts of a quick run."""


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    wanted = scale.count(300, 8)
    server = PrivateServer()
    try:
        accounts = ACCOUNTS if scale.size >= RECORD else FEW
        found = FullStorm(folder, server.url, scale.seed, broken=broken, accounts=accounts).run(wanted)
    finally:
        server.remove()
    follows = sorted(found.follows) or [0.0]
    return [
        no_less("nodes killed or stopped", found.kills + found.stops, wanted),
        no_less("of them ended by the others", found.ends, wanted // 3),
        *promises(found, each=20),
        no_less("uncertain in all (else no fault met a call)", found.uncertain, 1),
        no_more("followed after, 99th of 100", round(follows[len(follows) * 99 // 100], 2),
                LEASE_S + 2, " s", timing=True),
        no_less("use of the limits outside of take-overs", round(found.use, 4), scale.timing(0.95, 0.8), timing=True),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E02",
    title="SIGKILL and SIGSTOP of three nodes on one PostgreSQL store while they send",
    run=run,
    needs=("postgresql",),
    breaks={
        "forget-nodes-windows": "who follows a node begins with empty windows",
        "deaf,no-lease,no-fence": "a node that was ended and does not hear of it goes on sending and writing",
    },
)
