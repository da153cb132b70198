"""The database under several nodes is restarted, fails over, and ends their connections."""

from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import url_for
from tests.contracts.stores.postgres_standby import Pair
from tests.scenarios.store_storm import CutStorm, StoreStorm

pytestmark = pytest.mark.slow


def test_a_database_that_is_restarted_and_fails_over_costs_no_promise_and_no_restart(
    tmp_path: Path,
) -> None:
    servers = Pair()
    try:
        figures = StoreStorm(tmp_path, servers, seed=1).run(victims=4)
    finally:
        servers.remove()
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert (figures.unanswered, figures.without_retry) == (0, 0)
    assert figures.restarts == 4 and figures.taken > 30


def test_connections_that_the_database_ends_are_opened_again(tmp_path: Path) -> None:
    figures = CutStorm(tmp_path, url_for(tmp_path), seed=1).run(victims=6)
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert (figures.unanswered, figures.without_retry) == (0, 0)
    assert figures.cuts == 6 and figures.taken > 30
