"""E26: SIGTERM under load, a second one, and calls that take longer than the grace period."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.stops import stops


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    times = scale.count(200, 4)
    found = stops(folder, times, scale.seed, broken)
    return [
        no_less(f"stops {found.stops}", sum(found.stops.values()), times),
        no_more("ends with another code than 0", sum(code != 0 for code in found.codes), 0),
        no_more("calls begun after the signal", found.late, 0),
        no_more("uncertain although the grace sufficed", found.needless, 0),
        no_less("flagged where it did not", found.in_doubt, 1),
        no_more("stops with more flagged than calls in flight", found.over_in_flight, 0),
        no_more("sent twice and not flagged", len(found.kept.twice), 0),
        no_more(f"lost of {found.kept.acknowledged} acknowledged", len(found.kept.lost), 0),
        no_more("said to be sent, not in the ledger", len(found.kept.false_endings), 0),
        no_more("end beyond its grace, at most", round(found.beyond, 2), scale.timing(1, 2), " s"),
    ]


EXPERIMENT = Experiment(
    id="E26",
    title="SIGTERM under load, twice, and with a grace shorter than a call",
    run=run,
    breaks={
        "keep-sending": "it goes on handing over for two seconds after the signal",
        "no-grace": "its calls are cut off at once",
        "endless-grace": "it waits for its calls however long they take",
    },
)
