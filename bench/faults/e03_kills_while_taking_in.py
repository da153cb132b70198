"""E03: the server is killed while it takes in single messages and batches; clients send again under the same keys."""

from pathlib import Path

from bench.faults.breaks_failpoints import INTAKE
from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.intake_kills import intake_kills


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    kills = scale.count(1000, 6)
    found = intake_kills(folder, kills, scale.seed, broken, INTAKE)
    return [
        no_less("kills survived", found.kills, kills),
        no_less("of them at failpoints", found.at_failpoints.total(), kills // 3),
        no_less("requests sent again", found.retried, kills // 3),
        no_more(f"missing of {found.acknowledged} acknowledged", len(found.missing), 0),
        no_more("stored twice under one key", len(found.doubled), 0),
        no_more("acknowledged under another id", len(found.other_id), 0),
        no_more("stored, never sent by a client", len(found.foreign), 0),
        no_more(f"in part, of {found.unanswered_batches} unanswered batches", len(found.partial), 0),
    ]


EXPERIMENT = Experiment(
    id="E03",
    title="SIGKILL while taking in, clients send again under the same keys",
    run=run,
    breaks={
        "yes-before-commit": "senders are told 'yes' before the commit",
        "forget-keys": "idempotency keys are not looked up",
        "half-batches": "a batch is stored in two commits",
    },
)
