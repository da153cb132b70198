"""The nodes of the Compose file, started by hand on a real PostgreSQL: they come up, send, and have what the dashboard asks for."""

import re
import sys
from pathlib import Path

from tests.contracts.stores.postgres_server import url_for
from tests.guards.deployed import NODES, expressions, read
from tests.scenarios.server import (
    WAIT_S,
    Process,
    Server,
    Witness,
    clean_environment,
    drained,
    text_body,
    until,
)

OURS = re.compile(r"\bpaceline_\w+")


class Service(Server):
    """One service of the file: its command and environment, with the addresses and folders of this machine."""

    def __init__(self, folder: Path, name: str, keys: Path) -> None:
        place = folder / name
        place.mkdir()
        super().__init__(place, keys)
        self.service = read("compose", "compose.yaml")["services"][name]
        self.store = url_for(folder)

    def spawn(self, *more: str) -> Process:
        here = {"PACELINE_STORE": self.store, "PACELINE_DATA": str(self.data), "PACELINE_HOST": "127.0.0.1"}
        theirs = self.service["environment"]
        assert here.keys() <= theirs.keys()
        environment = (
            clean_environment()
            | theirs
            | here
            | {"PACELINE_PORT": "0", "PACELINE_OUTGOING_ALLOW": "127.0.0.0/8"}
        )
        command = [sys.executable, "-m", "paceline.cli.main", *self.service["command"], *more]
        self.process = Process(command, self.log, environment, self.folder)
        return self.process


def test_the_nodes_come_up_and_send_and_have_every_figure_of_the_dashboard(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with Witness(tmp_path) as witness:
        first, second = (Service(tmp_path, name, keys) for name in NODES)
        with first, second:
            first.start()
            second.start()
            until(lambda: shared(first), "both have their share")
            for number in range(8):
                first.account(f"bot{number}", witness, 1000 + number, pool=f"pool{number}")
            first.send_all([text_body(f"bot{n}", f"hello {n} {k}") for n in range(8) for k in range(3)])
            drained(first, WAIT_S)
            assert witness.report()["taken"] == 24
            asked = {name for text in expressions() for name in OURS.findall(text)}
            assert len(asked) >= 10
            for node in (first, second):
                was_read(node)
                assert asked <= names(node), asked - names(node)
                assert 'status="completed"' in figures(node), "it sends"
            assert second.ask("POST", "/api/v1/messages", {}).status == 421
            assert second.stop() == 0 and first.stop() == 0


def shared(node: Server) -> bool:
    found = node.api("GET", "/nodes")
    return not found["free"] and [n["partitions"] for n in found["items"]] == [32, 32]


def was_read(node: Server) -> None:
    """As soon as its figures hold what only the store knows: that is read beside a scrape."""
    until(lambda: "paceline_store_commit_ms" in figures(node), "what the store knows was read")


def names(node: Server) -> set[str]:
    """Of its series, and of what has none yet, as accounts that were never told to wait."""
    lines = figures(node).splitlines()
    return {line.split()[2] if line.startswith("# TYPE") else re.split(r"[{ ]", line)[0] for line in lines}


def figures(node: Server) -> str:
    reply = node.ask("GET", "/metrics")
    assert reply.status == 200
    return reply.body.decode()
