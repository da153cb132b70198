"""E07, one process: SIGSTOP for longer than every time-out and window, with calls in flight that get answered."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.pauses import AWAY_S, pauses


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    times = scale.count(20, 1)
    found = pauses(folder, times, scale.seed, broken)
    return [
        no_less(f"pauses of {AWAY_S:g} s", found.pauses, times),
        no_less("calls in flight when it was stopped", found.in_flight, 4 * times),
        no_more("sent twice", len(found.twice), 0),
        no_more("webhooks repeated under another id", len(found.changed_key), 0),
        no_more("taken by the provider, neither settled nor flagged", len(found.neither), 0),
        no_more("said to be sent, not in the ledger", len(found.false_endings), 0),
        no_more("two calls of one message at once", found.two_hands, 0),
        no_more(f"flagged (settled late: {found.accepted_late}) beyond those in flight",
                max(0, found.uncertain - found.in_flight), 0),
        no_more("fullest window as a share of its limit", found.ratio, 1.0),
        no_more("first call after the pause", round(max(found.wakes), 2), scale.timing(2, 5), " s", timing=True),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E07",
    title="the process is stopped in its tracks and goes on",
    run=run,
    breaks={
        "resend-unknown": "a call whose outcome nobody learnt is made again",
        "short-windows": "every window is a tenth shorter than its limit",
    },
)
