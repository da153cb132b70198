"""E13: four nodes follow each other at one account, whose limit is lowered and raised while it sends."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less
from bench.faults.node_promises import promises
from tests.contracts.stores.postgres_server import PrivateServer
from tests.scenarios.limit_storm import MOST, NODES, LimitStorm


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    wanted = scale.count(120, 8)
    server = PrivateServer()
    try:
        storm = LimitStorm(folder, server.url, scale.seed, broken=broken)
        found = storm.run(wanted, count=NODES, low=0.1, high=1.0)
    finally:
        server.remove()
    return [
        no_less("nodes killed or stopped", found.kills + found.stops, wanted),
        no_less("changes of the limit", len(storm.changes), wanted // 2),
        no_less("of them to a lower one", sum(later < earlier for (_, earlier), (_, later) in
                zip(storm.changes, storm.changes[1:], strict=False)), wanted // len(MOST)),
        *promises(found),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E13",
    title="one account, four nodes that come and go, and a limit that changes",
    run=run,
    needs=("postgresql",),
    breaks={
        "forget-nodes-windows": "who follows a node begins with empty windows",
        "old-limits": "a node never hears of a setting that another one changed",
    },
)
