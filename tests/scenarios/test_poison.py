"""Messages that end the process are found and set aside; who was under way beside them is not to blame."""

import json
import signal
from pathlib import Path

import pytest

from tests.scenarios.poison import ledger, poison, result, run_once

pytestmark = [pytest.mark.every_store, pytest.mark.usual]


def test_a_poison_is_quarantined_after_three_crashes_and_nobody_else_is_blamed(tmp_path: Path) -> None:
    figures = poison(tmp_path, ["exit", "memory"], neighbours=40)
    print("\n".join(figures.lines()))
    assert (figures.quarantined, figures.most_crashes_of_a_poison) == (2, 3)
    assert figures.crashes == 4  # twice both at once, then each alone
    assert (figures.blamed, figures.attempts_taken, figures.together) == ([], [], [])


def test_what_may_not_be_repeated_is_uncertain_and_never_run_again(tmp_path: Path) -> None:
    plan = [{"kind": kind, "idempotency_key": kind} for kind in ("once-fault", "work")]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert run_once(tmp_path) == -signal.SIGSEGV
    assert run_once(tmp_path) == 0
    fault, work = result(tmp_path)
    assert (fault["state"], fault["error"]["code"], fault["attempts"]) == ("uncertain", "crash", 1)
    assert (work["state"], work["attempts"]) == ("completed", 1)
    assert [line["kind"] for line in ledger(tmp_path)].count("once-fault") == 1
