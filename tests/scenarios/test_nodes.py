"""Several nodes on one PostgreSQL store, some of which are killed, stopped or replaced while they send."""

import asyncio
from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import ask, url_for
from tests.contracts.stores.postgres_standby import Pair
from tests.scenarios.newer import LATER
from tests.scenarios.node_storm import node_storm
from tests.scenarios.rolling import Rolling
from tests.scenarios.store_storm import CutStorm, StoreStorm

pytestmark = pytest.mark.slow


def test_nodes_that_are_killed_and_stopped_break_no_promise(tmp_path: Path) -> None:
    figures = node_storm(tmp_path, url_for(tmp_path), victims=10, seed=1)
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.kills and figures.stops and figures.taken > 200


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


def test_a_limit_of_everything_holds_while_nodes_are_killed_and_stopped(tmp_path: Path) -> None:
    figures = node_storm(tmp_path, url_for(tmp_path), victims=8, seed=2, wide=(8, 1.0))
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.kills and figures.stops and figures.wide_worst == 8
