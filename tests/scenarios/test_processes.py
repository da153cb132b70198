"""`paceline up --processes`: nodes of one machine that are started, watched and ended together."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.stores.postgres_server import url_for
from tests.scenarios.server import WAIT_S, NotAnsweredError, Server, Witness, drained, text_body, until

PORT = re.compile(r"listens on http://127\.0\.0\.1:(\d+) \((.*?)\)")
ACCOUNTS = 12


class Family(Server):
    """A parent with its nodes, in a session of its own: who gives it Ctrl-C gives it to all that are in it."""

    def __init__(self, folder: Path, many: int) -> None:
        super().__init__(folder, prefix=("setsid",))
        self.many = many
        self.seen: set[int] = set()

    def begin(self, *more: str) -> None:
        self.start("--store", url_for(self.folder), "--processes", str(self.many), *more)
        self.complete()

    def nodes(self) -> list[dict[str, Any]]:
        found = self.api("GET", "/nodes")
        return [] if found["free"] else list(found["items"])

    def complete(self) -> dict[int, str]:
        """Process and role of each node, as soon as all live and have their share."""

        def all_there() -> dict[int, str]:
            nodes = self.nodes()
            well = len(nodes) == self.many and all(n["state"] == "alive" and n["partitions"] for n in nodes)
            return {n["process"]: n["role"] for n in nodes} if well else {}

        found = until(all_there, "all nodes share the work")
        self.seen |= set(found)
        return found

    def said(self) -> str:
        return self.log.read_text("utf-8")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of its log with this event."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def process_of(self, name: str) -> int:
        """The newest process of a node."""
        return [int(line["process"]) for line in self.logged("started a node") if line["node"] == name][-1]

    def follows(self, name: str, process: int) -> None:
        """As soon as another process is this node."""
        until(lambda: self.process_of(name) != process, "it is started again")

    def orphan(self) -> None:
        """Kill the parent, and wait for nobody else."""
        assert self.process is not None
        self.process.child.kill()
        self.process.child.wait()

    def left(self) -> list[int]:
        """Those of all nodes that were ever seen of which there is still a process."""
        return [process for process in self.seen if alive(process)]

    def make_accounts(self, witness: Witness) -> None:
        for number in range(ACCOUNTS):
            self.account(f"bot{number}", witness, 1000 + number, pool=f"pool{number}", concurrency=4)

    def send_to_all(self, text: str, each: int = 2) -> list[str]:
        bodies = [text_body(f"bot{n}", f"{text} {n} {k}") for n in range(ACCOUNTS) for k in range(each)]
        return self.send_all(bodies)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # its parent is gone, and whoever adopted it has not looked yet


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with Witness(tmp_path) as made:
        yield made


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    made = Family(tmp_path, 3)
    try:
        with made:
            yield made
    finally:
        for process in made.left():
            os.kill(process, signal.SIGKILL)


def test_the_first_takes_messages_and_all_send(family: Family, witness: Witness) -> None:
    family.begin()
    assert sorted(family.complete().values()) == ["all", "sender", "sender"]
    until(lambda: len(PORT.findall(family.said())) == 3, "all say where they listen")
    offers = dict(PORT.findall(family.said()))
    assert sorted(offers.values()) == [
        "API reference: /docs",
        *["role sender: /health and /metrics alone"] * 2,
    ]
    family.make_accounts(witness)
    family.send_to_all("one")
    drained(family, WAIT_S)
    assert family.count("completed") == 2 * ACCOUNTS
    assert witness.report()["taken"] == 2 * ACCOUNTS
    sent = {}
    for port in offers:
        assert family.process is not None
        family.process.port = int(port)
        assert family.ask("GET", "/health/ready").status == 200
        figures = family.ask("GET", "/metrics").body.decode()
        sent[port] = sum(map(float, re.findall(r'messages_total\{.*status="completed"\} (\S+)', figures)))
    assert sum(sent.values()) == 2 * ACCOUNTS and all(sent.values()), sent


def test_a_node_that_dies_is_started_again_each_time_a_little_later(family: Family, witness: Witness) -> None:
    family.begin()
    family.make_accounts(witness)
    for pauses in ([0.5], [0.5, 1.0]):
        victim = family.process_of("2/3")
        assert family.complete()[victim] == "sender"
        family.send_to_all(f"before death {len(pauses)}")
        os.kill(victim, signal.SIGKILL)
        family.follows("2/3", victim)
        assert family.process_of("2/3") in family.complete()
        told = family.logged("a node died and is started again")
        assert [line["in_s"] for line in told] == pauses
        assert {(line["node"], line["ended"]) for line in told} == {("2/3", "by SIGKILL")}
    family.send_to_all("after it")
    drained(family, WAIT_S)
    report = witness.report()
    assert report["twice"] == 0
    assert family.count("completed") + family.count("uncertain") == 6 * ACCOUNTS
    assert family.stop() == 0 and family.left() == []


def test_the_node_that_takes_messages_comes_back_at_its_port(
    tmp_path: Path, witness: Witness, family: Family
) -> None:
    family.begin()
    first = next(process for process, role in family.complete().items() if role == "all")
    os.kill(first, signal.SIGKILL)
    until(lambda: len(PORT.findall(family.said())) == 4, "it listens again")
    port, offer = PORT.findall(family.said())[-1]
    assert offer == "API reference: /docs"
    assert family.process is not None
    family.process.port = int(port)
    assert first not in family.complete()
    family.make_accounts(witness)
    family.send_to_all("after")
    drained(family, WAIT_S)
    assert witness.report()["taken"] == 2 * ACCOUNTS


def test_no_node_outlives_a_parent_that_is_killed(family: Family, witness: Witness) -> None:
    family.begin()
    family.make_accounts(witness)
    witness.behave("", hold=True)
    ids = family.send_to_all("held", 1)
    witness.wait(open=ACCOUNTS)
    family.orphan()
    assert len(family.left()) == 3  # their calls have their grace
    witness.release()
    until(lambda: not family.left(), "all nodes have ended")
    family.kill()
    family.begin()
    assert [family.get(id_)["state"] for id_ in ids] == ["completed"] * ACCOUNTS
    assert witness.report()["twice"] == 0


def test_one_that_hangs_does_not_outlive_it_either(family: Family, witness: Witness) -> None:
    """A call that never ends would keep its node for an hour: the grace ends it."""
    family.begin("--set", "grace=0.3")
    family.make_accounts(witness)
    witness.behave("", hold=True)
    family.send_to_all("held", 1)
    witness.wait(open=ACCOUNTS)
    family.orphan()
    until(lambda: not family.left(), "all nodes have ended")
    witness.release()


def test_ctrl_c_is_passed_on_once_and_ends_all_when_their_calls_have(
    family: Family, witness: Witness
) -> None:
    family.begin("--set", "grace=3600")
    family.make_accounts(witness)
    witness.behave("", hold=True)
    ids = family.send_to_all("held", 1)
    witness.wait(open=ACCOUNTS)
    os.killpg(family.pid, signal.SIGINT)  # as a terminal does it
    until(lambda: not listening(family), "they take no connection any more")
    assert len(family.left()) == 3  # told twice they would not wait
    witness.release()
    assert family.process is not None
    assert family.process.died(WAIT_S) == 0
    assert family.left() == []
    assert "Traceback" not in family.said()
    family.begin()
    assert [family.get(id_)["state"] for id_ in ids] == ["completed"] * ACCOUNTS


def test_a_second_one_ends_their_calls(family: Family, witness: Witness) -> None:
    family.begin("--set", "grace=3600")
    family.make_accounts(witness)
    witness.behave("", hold=True)
    ids = family.send_to_all("held", 1)
    witness.wait(open=ACCOUNTS)
    os.killpg(family.pid, signal.SIGTERM)
    until(lambda: not listening(family), "they take no connection any more")
    assert family.stop() == 0 and family.left() == []
    witness.release()
    family.begin()
    assert [family.get(id_)["state"] for id_ in ids] == ["uncertain"] * ACCOUNTS


def test_one_that_does_not_end_in_time_is_killed(family: Family) -> None:
    family.begin("--set", "grace=0.1")
    stopped = family.process_of("3/3")
    os.kill(stopped, signal.SIGSTOP)
    assert family.stop() == 1 and family.left() == []
    (line,) = family.logged("killed nodes that did not end in time")
    assert line["nodes"] == ["3/3"]


def test_what_keeps_one_from_starting_is_said_and_ends_all(family: Family) -> None:
    store = "postgresql://127.0.0.1:1/queue"
    parent = family.spawn("--store", store, "--processes", "3", "--set", "store_wait=0")
    assert parent.died(WAIT_S) == 1
    until(lambda: "a node could not start; all end" in family.said(), "it says so")
    assert "cannot be reached" in family.said() and "Traceback" not in family.said()
    assert [line["node"] for line in family.logged("started a node")] == ["1/3"]


def test_a_file_is_for_one_process(family: Family) -> None:
    refused = family.spawn("--processes", "2")
    assert refused.died(WAIT_S) == 2
    until(lambda: "\n" in family.said(), "it says why")
    assert "2 processes share a store in PostgreSQL" in family.said() and "Traceback" not in family.said()


def listening(server: Server) -> bool:
    try:
        return server.ask("GET", "/health/live").status == 200
    except NotAnsweredError:
        return False
