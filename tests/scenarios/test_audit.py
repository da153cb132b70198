"""After a storm of kills the journal proves that every promise was kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.stores import kinds
from tests.scenarios.kills import Storm
from tests.scenarios.server import ROOT

pytestmark = pytest.mark.every_store


class Limited(Storm):
    """The storm under limits of accounts and of everything."""

    def _set_up(self) -> None:
        super()._set_up()
        self.server.api("PUT", "/limits/all", {"scope": {"global": True}, "limit": "400/s"})


def audited(data: Path) -> tuple[int, dict[str, Any]]:
    store = kinds.url_of(data)
    done = subprocess.run(
        [sys.executable, "-m", "paceline.cli.main", "audit", *([] if store else [str(data)]), "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env=os.environ | ({"PACELINE_STORE": store} if store else {}),
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_after_a_storm_of_kills_the_journal_is_clean(tmp_path: Path) -> None:
    figures = Limited(tmp_path, seed=5, limits=("30/s", "100/5s")).run(kills=5)
    assert figures.broken == []
    code, view = audited(tmp_path / "data")
    assert [check for check in view["checks"] if check["broken"]] == []
    assert code == 0
    looked = {check["name"]: check["looked_at"] for check in view["checks"]}
    assert looked["windows"]["limits"] == 40
    assert looked["endings"]["messages"] >= figures.acknowledged
    assert looked["order"]["first hand-overs"] > 500
    assert max(one["most_places_taken"] / one["maximum"] for one in view["limits"]) == 1
