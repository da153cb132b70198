"""E11: providers that ask to wait in every way there is, sensible or not, and a restart in the middle."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.floods import floods


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    rounds = scale.count(40, 1)
    found = floods(folder, scale.count(5, 1), rounds, broken)
    kinds = ", ".join(f"{kind} {most:.2f}" for kind, most in found.stalls.items())
    return [
        no_less("answers that asked to wait", found.floods, 12 * rounds),
        no_less("restarts meanwhile", found.restarts, rounds),
        no_more("sent inside a wait", len(found.inside), 0),
        no_more(f"stall beyond the wait ({kinds})", round(max(found.stalls.values()), 2),
                scale.timing(1, 3), " s", timing=True),
        no_more("waits, and what was cut of them, that the account does not show", len(found.not_shown), 0),
        no_more("messages that it cost an attempt", len(found.attempts), 0),
        no_more("sent twice", found.twice, 0),
        no_more("lost", found.lost, 0),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E11",
    title="flood waits as seconds, date, missing, negative, absurd; restarts meanwhile",
    run=run,
    breaks={
        "forget-waits": "a start forgets that a provider asked to wait",
        "ignore-waits": "nobody waits when a provider asks to",
        "endless-waits": "no wait is too long",
    },
)
