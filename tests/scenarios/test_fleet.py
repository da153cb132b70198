"""A short run of the simulated fleets, and the proof that it finds what it is for. See docs/scaling.md."""

import pytest

from paceline.model.nodes import PARTITIONS
from tests.simulation.fleet import moves_of_a_death, moves_of_a_join, run
from tests.simulation.fleet_planted import planted


@pytest.mark.parametrize(
    ("count", "seed", "rate"),
    [(2, 1, 1.0), (3, 2, 1.0), (9, 3, 1.0), (64, 4, 2.0), (200, 5, 2.0)],
)
def test_a_fleet_in_a_storm_has_one_owner_for_everything(count: int, seed: int, rate: float) -> None:
    result = run(seed, count, 40.0, rate)
    assert result.broken == []
    assert result.faults


def test_a_thousand_nodes_share_too() -> None:
    result = run(6, 1000, 6.0, 3.0)
    assert result.broken == []
    assert result.sizes == (0, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 31, 63, 64, 150])
def test_a_join_moves_no_more_than_its_share_and_a_death_only_what_is_orphaned(count: int) -> None:
    for seed in range(1, 4):
        moved, needed = moves_of_a_join(count, seed)
        assert moved == needed == PARTITIONS // (count + 1)
    if count > 1:
        moved, orphaned = moves_of_a_death(count)
        assert moved == orphaned


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("sends-without-a-lease", "has two owners"),
        ("decides-until-given", "has two owners"),
        ("follows-too-soon", "has two owners"),
        ("waits-for-the-one", "without an owner"),
    ],
)
def test_a_planted_bug_is_found(name: str, broken: str) -> None:
    with planted(name):
        found = next((result for seed in range(1, 9) if (result := run(seed, 9, 60.0, 1.0)).broken), None)
    assert found is not None
    assert any(broken in each for each in found.broken)


@pytest.mark.parametrize("name", ["no-memory-of-who-has-most", "everybody-takes", "offers-by-an-old-view"])
def test_needless_moves_are_found(name: str) -> None:
    with planted(name):
        joins = [moves_of_a_join(count, seed) for count in (3, 7, 9) for seed in range(1, 4)]
        deaths = [moves_of_a_death(count) for count in (3, 7)]
    assert any(moved > needed for moved, needed in joins + deaths)
