"""Several nodes are replaced by a later version, one after the other, while all send."""

import asyncio
from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import ask, url_for
from tests.scenarios.newer import LATER
from tests.scenarios.rolling import Rolling

pytestmark = pytest.mark.slow


def test_every_node_is_replaced_by_a_later_version_while_all_send(tmp_path: Path) -> None:
    rolling = Rolling(tmp_path, url_for(tmp_path))
    figures = rolling.replace_all()
    print("\n".join(rolling.lines()))
    assert figures.broken == []
    assert figures.uncertain == 0
    assert figures.taken > 200
    assert rolling.steps_taken == 1
    assert asyncio.run(ask(tmp_path, "SELECT version FROM paceline_schema")) == LATER.version
    assert "newer Paceline" in rolling.refused and "cannot work with it" in rolling.refused
    assert rolling.gap < 6  # 2 s are promised, and measured when the machine is quiet; others may use it
    assert max(rolling.delays) < 8
