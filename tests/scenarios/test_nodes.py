"""Several nodes on one PostgreSQL store, some of which are killed or stopped while they send."""

from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import url_for
from tests.scenarios.node_storm import node_storm

pytestmark = pytest.mark.slow


def test_nodes_that_are_killed_and_stopped_break_no_promise(tmp_path: Path) -> None:
    figures = node_storm(tmp_path, url_for(tmp_path), victims=10, seed=1)
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.kills and figures.stops and figures.taken > 200
