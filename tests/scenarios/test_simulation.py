"""A short run of the crash simulation, and the proof that it finds what it is for. See docs/simulation.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import hunt
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.scenario import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(8))
def test_no_rule_is_broken(seed: int) -> None:
    assert run(seed).violations == []


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_was_wrong_stays_mended(seed: int) -> None:
    assert run(seed).violations == [], REGRESSIONS[seed]


def test_a_seed_has_the_same_history_each_time_and_in_each_process() -> None:
    histories = {"\n".join(run(4, history=True).history) for _ in range(2)}
    command = [sys.executable, "-m", "tests.simulation", "--seed", "4", "--history"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert histories == {done.stdout.removesuffix("\n")}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "rule"),
    [("called-before-mark", 3), ("acknowledged-before-commit", 1), ("counted-from-start", 5)],
)
def test_a_planted_bug_is_found(name: str, rule: int) -> None:
    found = hunt(name, range(20))
    assert found is not None
    assert rule in {violation.rule for violation in found.violations}
