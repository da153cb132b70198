"""Every fault experiment can be started, and each of its broken variants is there."""

from bench.faults.broken import breaks
from bench.faults.catalogue import discover


def test_every_experiment_is_found_and_so_are_its_breaks() -> None:
    found = discover()
    assert len(found) >= 15
    there = breaks()
    for id_, experiment in found.items():
        assert experiment.breaks, id_
        names = [name.partition("=")[0] for each in experiment.breaks for name in each.split(",")]
        missing = [name for name in names if name not in there]
        assert not missing, (id_, missing)
