"""E12: restarts every one to three seconds, half of them kills, while every account is at its limits."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.restarts import restarts

MINUTE_AND_HOUR = [(20, 60.0), (200, 3600.0)]
SHORT = [(5, 2.0), (20, 10.0)]
LEAST_S = 20.0


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    seconds = max(LEAST_S, 600 * scale.size)
    # The same shape as 20 a minute and 200 an hour, but with several of its long windows in the run.
    shrunk = (
        [(20, 60 * seconds / 1800), (200, 3600 * seconds / 1800)] if seconds > 120 else [(4, 1.0), (16, 6.0)]
    )
    shrunk = [(most, round(span, 3)) for most, span in shrunk]
    found = restarts(folder, seconds, SHORT, 9, scale.seed, others=[shrunk, MINUTE_AND_HOUR], broken=broken)
    windows = ", ".join(f"{count} of {limit[0]} in {limit[1]:g} s" for limit, count in found.worst.items())
    return [
        no_less("restarts", found.stopped + found.killed, 4),
        no_more(f"fullest window as a share of its limit ({windows})", found.ratio, 1.0),
        no_more("arrivals too early for a limit", found.exceeded, 0),
        no_less(
            f"use of the limits, away for {sum(found.downs):.0f} of {found.seconds:.0f} s",
            round(found.use, 4),
            scale.timing(0.9, 0.7),
            timing=True,
        ),
        no_more("sent twice", found.twice, 0),
    ]


EXPERIMENT = Experiment(
    id="E12",
    title="restart storm at the limits",
    run=run,
    breaks={
        "forget-windows": "a start begins with empty windows",
        "short-windows": "every window is a tenth shorter than its limit",
    },
)
