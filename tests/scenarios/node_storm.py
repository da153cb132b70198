"""Kill and stop nodes at random while they share the work; then hold what they promised against the witness's ledger.

Every account has a limit, a pool of its own and so its place on some node. Clients send to whichever node answers; they
write down every text before they send it and every id after they were told 'yes'. A third of the messages carry an
idempotency key and are sent again, to another node, until somebody says 'yes'.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import Limit, by_sender, exceeded, taken_by_text, worst_count
from tests.scenarios.node_figures import LEASE_S, LIMIT, Figures
from tests.scenarios.server import (
    NotAnsweredError,
    Server,
    Witness,
    clean_environment,
    drained,
    text_body,
    until,
)

ACCOUNTS = 12
KEYED = 0.33
CLIENTS = 3
_TOLD = frozenset({"uncertain", "failed", "pending", "scheduled", "retrying"})


class Node(Server):
    """One of the servers on the shared store."""

    def __init__(self, folder: Path, number: int, store: str, broken: str = "") -> None:
        place = folder / f"node{number}"
        place.mkdir(parents=True)
        super().__init__(place, broken=broken)
        self.number, self.store = number, store
        self.stopped = False

    def begin(self) -> float:
        return self.start("--store", self.store, "--set", f"lease={LEASE_S}s")

    def share_keys(self, other: "Node") -> None:
        """The secrets of accounts, and the key of the API, are the installation's."""
        self.data.mkdir(exist_ok=True)
        for name in ("admin.key", "secret.key"):
            shutil.copy(other.data / name, self.data / name)

    def signal(self, what: int) -> None:
        assert self.process is not None
        self.process.child.send_signal(what)

    def nodes(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", "/nodes")
        return found

    @property
    def id(self) -> str:
        """Empty where it is not one any more and does not know it."""
        return next((str(one["id"]) for one in self.nodes()["items"] if one["this"]), "")


class Client:
    """One thread that sends to any node that answers."""

    def __init__(self, storm: "NodeStorm", number: int) -> None:
        self.storm, self.number = storm, number
        self.chance = random.Random(f"{storm.seed}/{number}")
        self.attempted: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            while not self.storm.over.is_set():
                self._send_one()
                self.storm.over.wait(self.chance.uniform(0, self.storm.pace))
        except BaseException as error:
            self.failure = error

    def _send_one(self) -> None:
        text = f"{self.number}-{len(self.attempted)}"
        self.attempted.add(text)
        message = text_body(f"a{self.chance.randrange(self.storm.accounts)}", text)
        keyed = self.chance.random() < KEYED
        if keyed:
            message["idempotency_key"] = text
        while not self._told(text, message) and keyed and not self.storm.over.is_set():
            self.storm.over.wait(0.05)

    def _told(self, text: str, message: dict[str, Any]) -> bool:
        node = self.chance.choice(self.storm.nodes)
        if node.stopped or node.process is None or not node.process.port:
            return False
        try:
            with node.line(timeout=self.storm.patience) as line:
                reply = line.ask("POST", "/api/v1/messages", message)
        except NotAnsweredError:
            self.storm.figures.unanswered += 1
            return False
        if reply.status == 503:
            self.storm.figures.refused += 1
            self.storm.figures.without_retry += not reply.headers.get("retry-after", "").isdigit()
            return False
        assert reply.status in {200, 202}, (reply.status, reply.body)
        self.acknowledged[text] = reply.json["id"]
        return True


class NodeStorm:
    """The run."""

    patience = 3.0
    """Seconds that a client waits for an answer."""
    audit_options: Sequence[str] = ()

    limit = LIMIT
    kind: type[Node] = Node

    def __init__(
        self,
        folder: Path,
        store: str,
        seed: int,
        *,
        broken: str = "",
        pace: float = 0.15,
        accounts: int = ACCOUNTS,
        wide: Limit | None = None,
    ) -> None:
        self.folder, self.store, self.seed, self.accounts = folder, store, seed, accounts
        self.wide = wide
        self.chance = random.Random(seed)
        self.broken, self.pace = broken, pace
        self.over = threading.Event()
        self.figures = Figures()
        self.nodes: list[Node] = []
        self.clients: Sequence[Client] = []
        self.witness: Witness

    def run(self, victims: int, count: int = 3, low: float = 0.2, high: float = 1.5) -> Figures:
        """Kill or stop so many nodes, `low` to `high` seconds apart; of the `count` nodes one is always left alone."""
        with ExitStack() as stack:
            self._come_together(stack, count)
            self._storm(victims, low, high)
        return self.figures

    def _come_together(self, stack: ExitStack, count: int) -> None:
        """The witness, so many nodes with an even share each, and the accounts."""
        latency = ("--latency", "0.005-0.02", "--seed", str(self.seed))
        self.witness = stack.enter_context(Witness(self.folder, *latency, limits=(self.limit,)))
        for number in range(count):
            node = self.kind(self.folder, number, self.store, self.broken)
            if number:
                node.share_keys(self.nodes[0])
            self.nodes.append(stack.enter_context(node))
            node.begin()
        limits = [f"{self.limit[0]}/{self.limit[1]:g}s"]
        for index in range(self.accounts):
            self.nodes[0].account(
                f"a{index}", self.witness, 1000 + index, concurrency=5, limits=limits, pool=f"p{index}"
            )
        if self.wide is not None:
            limit = f"{self.wide[0]}/{self.wide[1]:g}s"
            self.nodes[0].api("PUT", "/limits/all", {"scope": {"global": True}, "limit": limit})
        self._shared(count)

    def _clients(self) -> Sequence[Client]:
        return [Client(self, number) for number in range(CLIENTS)]

    def _shared(self, count: int) -> None:
        def even() -> bool:
            found = self.nodes[0].nodes()
            sizes = [one["partitions"] for one in found["items"]]
            return len(sizes) == count and not found["free"] and max(sizes) - min(sizes) <= 1

        until(even, "the partitions are shared")
        last = f"/api/v1/accounts/a{self.accounts - 1}"
        until(lambda: all(n.ask("GET", last).status == 200 for n in self.nodes), "all know the accounts")

    def _storm(self, victims: int, low: float, high: float) -> None:
        def faults() -> None:
            while self.figures.faults < victims:
                time.sleep(self.chance.uniform(low, high))
                self._fault()

        self._sending(faults)
        drained(self.nodes[0], 300)
        self._judge()

    def _sending(self, act: Callable[[], None]) -> None:
        """Do something while the clients send."""
        self.clients = self._clients()
        for client in self.clients:
            client.thread.start()
        try:
            act()
        finally:
            self.over.set()
            for client in self.clients:
                client.thread.join(30)
        for client in self.clients:
            if client.failure is not None:
                raise client.failure

    def _fault(self) -> None:
        """Kill or stop one node, or two at once; the others follow; then it comes back."""
        self._harm(self.chance.sample(self.nodes, 1 if self.chance.random() < 0.8 else len(self.nodes) - 1))

    def _harm(self, victims: Sequence[Node]) -> None:
        witness = next(node for node in self.nodes if node not in victims)
        ids = {node.number: node.id for node in victims}
        begun = time.monotonic()
        for node in victims:
            node.stopped = True
        ways = [self._kill if self.chance.random() < 0.5 else self._stop for _ in victims]
        backs = [way(node) for way, node in zip(ways, victims, strict=True)]
        brief = self.chance.random() < 0.25
        if brief:  # shorter than the lease: nobody has to notice a node that was stopped
            time.sleep(self.chance.uniform(0.05, LEASE_S / 2))
        else:
            self._followed(witness, set(ids.values()), begun)
        for back in backs:
            back()
        for node in victims:
            node.stopped = False

    def _followed(self, witness: Node, ids: set[str], begun: float) -> None:
        def followed() -> bool:
            found = witness.nodes()
            return not found["free"] and not ids & {one["id"] for one in found["items"]}

        until(followed, "the others follow", 30)
        took = time.monotonic() - begun
        self.figures.ends += len(ids)
        self.figures.follows.append(took)
        self.figures.slow_follows += took > LEASE_S + 2

    def _kill(self, node: Node) -> Callable[[], None]:
        node.kill()
        self.figures.kills += 1

        def back() -> None:
            node.begin()

        return back

    def _stop(self, node: Node) -> Callable[[], None]:
        node.signal(signal.SIGSTOP)
        self.figures.stops += 1

        def back() -> None:
            node.signal(signal.SIGCONT)
            until(lambda: node.ask("GET", "/health/ready").status == 200, "it is ready again")

        return back

    def _judge(self) -> None:
        figures = self.figures
        said = {text: id_ for client in self.clients for text, id_ in client.acknowledged.items()}
        attempted = {text for client in self.clients for text in client.attempted}
        stored = {message["id"]: message for message in self.nodes[0].all_messages()}
        arrivals = self.witness.arrivals()
        taken = taken_by_text(arrivals)
        figures.acknowledged, figures.attempted, figures.taken = len(said), len(attempted), len(taken)
        figures.states = dict(Counter(message["state"] for message in stored.values()))
        figures.two_hands = self.witness.report()["two_hands"]
        self._judge_limits(by_sender(arrivals))
        for text, id_ in said.items():
            if id_ not in stored or (text not in taken and stored[id_]["state"] not in _TOLD):
                figures.lost.append(text)
        figures.foreign = sorted(set(taken) - attempted)
        uncertain = {message["text"] for message in stored.values() if message["state"] == "uncertain"}
        figures.uncertain = len(uncertain)
        keys = Counter(
            message["idempotency_key"] for message in stored.values() if message["idempotency_key"]
        )
        figures.doubled_keys = [key for key, count in keys.items() if count > 1]
        for message in stored.values():
            if message["state"] == "completed" and message["text"] not in taken:
                figures.false_endings.append(message["text"])
        figures.twice = [text for text, found in taken.items() if len(found) > 1 and text not in uncertain]
        logs = [node.log.read_text("utf-8", "replace") for node in self.nodes]
        figures.refused_late = sum(log.count("late settlement refused") for log in logs)
        figures.audit = self._audit()

    def _judge_limits(self, senders: dict[str, list[int]]) -> None:
        self.figures.exceeded = sum(exceeded(moments, self.limit) for moments in senders.values())
        self.figures.worst = max(
            (worst_count(moments, self.limit[1]) for moments in senders.values()), default=0
        )
        if self.wide is not None:
            together = sorted(moment for each in senders.values() for moment in each)
            self.figures.wide_exceeded = exceeded(together, self.wide)
            self.figures.wide_worst = worst_count(together, self.wide[1])

    def _audit(self) -> list[str]:
        """What the store's own journal and counts say."""
        command = [sys.executable, "-m", "paceline.cli.main", "audit", "--json", *self.audit_options]
        environment = clean_environment() | {"PACELINE_STORE": self.store}
        told = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        checks = json.loads(told.stdout)["checks"]
        return [f"{check['name']}: {check['broken']}" for check in checks if check["broken"]]


def node_storm(
    folder: Path, store: str, victims: int, seed: int, broken: str = "", wide: Limit | None = None
) -> Figures:
    """Run it; see `Figures.broken`."""
    begun = time.monotonic()
    figures = NodeStorm(folder, store, seed, broken=broken, wide=wide).run(victims)
    print(f"{victims} nodes killed or stopped in {time.monotonic() - begun:.0f} s")
    return figures
