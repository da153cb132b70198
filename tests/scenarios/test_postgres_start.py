"""Paceline and its PostgreSQL server come up in whatever order."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.stores.postgres_server import PrivateServer
from tests.scenarios.server import WAIT_S, Server, until


@pytest.fixture(scope="module")
def database() -> Iterator[PrivateServer]:
    made = PrivateServer()
    made.stop()
    yield made
    made.remove()


def test_a_server_that_is_not_there_yet_is_waited_for(database: PrivateServer, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        process = server.spawn("--store", database.url)
        until(lambda: "waiting for the store" in server.log.read_text(), "it says that it waits")
        assert process.child.poll() is None
        database.start()
        process.listening()
        server.key = (server.data / "admin.key").read_text().strip()
        until(lambda: server.ask("GET", "/health/ready").status == 200, "the server is ready")
        said = server.log.read_text()
        assert said.count("waiting for the store") <= 3 and "Traceback" not in said
        server.stop()
    database.stop()


def test_it_is_waited_for_as_long_as_the_setting_says(database: PrivateServer, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        begun = time.monotonic()
        process = server.spawn("--store", database.url, "--set", "store_wait=1.5")
        assert process.died(WAIT_S) == 1
        assert time.monotonic() - begun >= 1.5
        until(lambda: "error: " in server.log.read_text(), "it says why")
        said = server.log.read_text()
        assert "cannot be reached" in said and "Traceback" not in said


def test_who_waits_can_be_told_to_end(database: PrivateServer, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        process = server.spawn("--store", database.url, "--set", "store_wait=1h")
        until(lambda: "waiting for the store" in server.log.read_text(), "it says that it waits")
        process.child.send_signal(signal.SIGTERM)
        assert process.died(WAIT_S) == 1
        assert "Traceback" not in server.log.read_text()
