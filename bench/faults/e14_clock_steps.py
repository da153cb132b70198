"""E14: the wall clock is set by seconds, hours and a month, forward and back, while the server runs and between runs."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.clock_steps import ROUND, clock_steps

ROUNDS = 12


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    rounds = scale.count(ROUNDS)
    found = clock_steps(folder, ROUND * rounds, broken)
    return [
        no_less("steps of the wall clock", found.steps, len(ROUND) * rounds),
        no_less("restarts in between", found.restarts, 4),
        no_more(f"sent before its moment by the wall clock, of {found.scheduled}", len(found.early), 0),
        no_more("refused as scheduled for the past", found.refused, 0),
        no_more("latest after its moment by the wall clock", round(found.late_s, 2), 5, " s"),
        no_more(f"expired ones sent, of {found.expiring}", len(found.expired_sent), 0),
        no_more(f"tried again before the back-off was over, of {found.retried}", found.hasty, 0),
        no_more("fullest window as a share of its limit", found.ratio, 1.0),
        no_more("longest stall of an account with work", round(found.stall_s, 2), 5, " s"),
        no_more("sent twice", found.twice, 0),
        no_more("lost, or waiting a minute after everything was due", found.lost, 0),
    ]


EXPERIMENT = Experiment(
    id="E14",
    title="steps of the wall clock",
    run=run,
    breaks={
        "follow-the-wall-clock": "limits are reckoned by the wall clock, steps and all",
        "forget-steps": "what is scheduled does not follow the wall clock after the start",
        "keep-retries": "a start after a step leaves back-offs on the old scale",
    },
)
