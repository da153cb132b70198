"""A copy beside its original sends nothing, and a kill in the middle of a migration or a purge breaks nothing."""

from pathlib import Path

import pytest

from bench.faults import e27_restore, e28_schema
from bench.faults.experiment import Figure, Scale


def broken(figures: list[Figure]) -> list[Figure]:
    return [figure for figure in figures if not figure.passed]


@pytest.mark.slow
def test_a_copy_beside_its_original_sends_nothing_until_it_is_released(tmp_path: Path) -> None:
    figures = e27_restore.run(tmp_path, Scale(0.03), "")
    assert broken(figures) == []
    assert len(figures) == 11


@pytest.mark.slow
def test_a_kill_in_a_migration_or_a_purge_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    figures = e28_schema.run(tmp_path, Scale(0.01), "")
    assert broken(figures) == []
    assert len(figures) > 20
