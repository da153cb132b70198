"""A limit of everything over several nodes, some of which are killed or stopped while they send."""

from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import url_for
from tests.scenarios.node_storm import node_storm

pytestmark = pytest.mark.slow


def test_a_limit_of_everything_holds_while_nodes_are_killed_and_stopped(tmp_path: Path) -> None:
    figures = node_storm(tmp_path, url_for(tmp_path), victims=8, seed=2, wide=(8, 1.0))
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.kills and figures.stops and figures.wide_worst == 8
