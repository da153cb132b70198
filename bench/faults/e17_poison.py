"""E17: messages whose handler ends the process, among neighbours that are to blame for nothing."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_more
from tests.scenarios.poison import poison
from tests.scenarios.poison_app import POISONS


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    """All ways to end a process, each several times, among some hundred neighbours."""
    kinds = sorted(POISONS)[: scale.count(4, 2)] * scale.count(3)
    figures = poison(folder, kinds, scale.count(400, 40), scale.seed, broken)
    if figures.unsettled:
        return [Figure("everything ends", f"not after {figures.crashes} crashes", "yes", passed=False)]
    missed = figures.poisons - figures.quarantined
    return [
        no_more("crashes of one poison", figures.most_crashes_of_a_poison, 3),
        no_more(f"crashes in all, with {figures.poisons} poisons met in {figures.groups} groups",
                figures.crashes, figures.most_crashes),
        no_more("poisons not quarantined", missed, 0),
        no_more("neighbours blamed", len(figures.blamed), 0),
        no_more("neighbours that lost an attempt", len(figures.attempts_taken), 0),
        no_more("suspects under way beside others", len(figures.together), 0),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "E17",
    "Poison messages",
    run,
    breaks={
        "poison-no-isolation": "suspects are sent again all at once",
        "poison-no-quarantine": "no number of crashes is too many",
        "poison-crash-is-attempt": "a crash costs whoever was under way an attempt",
        "poison-forgotten-suspects": "suspects that wait are forgotten at the next start",
    },
)
