"""Kill the server while it takes in single messages and batches; clients send again under the same keys.

Nothing is sent: the accounts are paused, so that the store alone tells what was taken in. Every message carries
an idempotency key, and every batch a label of its own. When no answer came to a batch, its client first asks
how many of it there are, and only then sends it again.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.server import Line, NotAnsweredError, Server, Witness, pause_of, text_body

CLIENTS = 4
PATIENCE_S = 2.0
LARGE = 0.06
"""The share of batches that have thousands of messages: more than is stored in one go elsewhere."""


@dataclass
class Figures:
    """What came out."""

    kills: int = 0
    at_failpoints: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    attempted: int = 0
    retried: int = 0
    batches: int = 0
    unanswered_batches: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    other_id: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        named = ("missing", "doubled", "foreign", "other_id", "partial")
        return [
            f"{name}: {len(found)}, such as {found[:3]}" for name in named if (found := getattr(self, name))
        ]

    def lines(self) -> list[str]:
        return [
            f"kills                 {self.kills}, at failpoints {dict(self.at_failpoints)}",
            f"acknowledged          {self.acknowledged} of {self.attempted} attempted",
            f"sent again            {self.retried} requests, {self.unanswered_batches} of {self.batches} batches",
            f"missing, doubled      {len(self.missing)}, {len(self.doubled)}",
            f"in part               {len(self.partial)}",
            f"another id than told  {len(self.other_id)}",
        ]


class Client:
    """One thread that sends, and sends again until it is told 'yes'."""

    def __init__(self, run: "IntakeKills", number: int) -> None:
        self.run, self.number = run, number
        self.chance = random.Random(f"{run.seed}/{number}")
        self.attempted: list[str] = []
        self.acknowledged: dict[str, set[str]] = {}
        self.retried = self.batches = self.unanswered = 0
        self.partial: list[str] = []
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            while not self.run.over.is_set():
                if self.number % 2:
                    self._single()
                else:
                    self._batch()
                self.run.over.wait(self.chance.uniform(0, 0.01 if self.number % 2 else 0.15))
        except BaseException as error:
            self.failure = error

    def _message(self, label: str = "") -> dict[str, Any]:
        key = f"{self.number}-{len(self.attempted)}"
        self.attempted.append(key)
        return text_body("bot", key, idempotency_key=key, **({"source": label} if label else {}))

    def _single(self) -> None:
        message = self._message()
        while (reply := self._ask("POST", "/api/v1/messages", message)) is None:
            self.retried += 1
        self._told(message, reply["id"])

    def _batch(self) -> None:
        self.batches += 1
        label = f"batch-{self.number}-{self.batches}"
        size = self.chance.randint(1500, 3500) if self.chance.random() < LARGE else self.chance.randint(5, 60)
        messages = [self._message(label) for _ in range(size)]
        while (reply := self._ask("POST", "/api/v1/messages/batch", {"messages": messages})) is None:
            self.retried += 1
            self.unanswered += 1
            found = self._stored(label)
            if found not in (0, size):
                self.partial.append(f"{label}: {found} of {size}")
        assert not reply["rejected"], reply["rejected"][:2]
        for each in reply["accepted"]:
            self._told(messages[each["index"]], each["id"])

    def _told(self, message: dict[str, Any], id_: str) -> None:
        self.acknowledged.setdefault(message["idempotency_key"], set()).add(id_)

    def _stored(self, label: str) -> int:
        order = {"action": "delete", "filter": {"source": [label]}}
        while (reply := self._ask("POST", "/api/v1/messages/actions?dry_run=true", order)) is None:
            pass
        return int(reply["matched"])

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """The answer; None when the server went away before it gave one."""
        self.run.up.wait()
        try:
            with Line(self.run.server.port, self.run.server.key, timeout=10) as line:
                reply = line.ask(method, path, body)
        except NotAnsweredError:
            self.run.over.wait(0.05)
            return None
        if reply.status == 503:
            return None  # starting: not acknowledged
        assert reply.status in {200, 202}, (reply.status, reply.body[:300])
        return reply.json


class IntakeKills:
    """The run."""

    def __init__(self, folder: Path, seed: int, broken: str = "", failpoints: Sequence[str] = ()) -> None:
        """`failpoints` of `bench.faults` are the points of every second kill."""
        self.folder, self.seed, self.broken, self.failpoints = folder, seed, broken, failpoints
        self.chance = random.Random(seed)
        self.up, self.over = threading.Event(), threading.Event()
        self.figures = Figures()
        self.server: Server

    def run(self, kills: int) -> Figures:
        with Witness(self.folder) as witness, Server(self.folder, broken=self.broken) as self.server:
            self.server.start()
            self.server.account("bot", witness, 1000)
            self.server.api("POST", "/accounts/bot/pause")
            clients = [Client(self, number) for number in range(CLIENTS)]
            for client in clients:
                client.thread.start()
            try:
                self.up.set()
                for _ in range(kills):
                    self._kill_once()
            finally:
                self.over.set()
                self.up.set()
                for client in clients:
                    client.thread.join(60)
            for client in clients:
                if client.failure is not None:
                    raise client.failure
            self._judge(clients)
        return self.figures

    def _kill_once(self) -> None:
        point = self.server.broken.rpartition("die-at=")[2].partition(":")[0] if self._armed else ""
        assert self.server.process is not None
        if not point or self.server.process.died(PATIENCE_S) is None:
            pause_of(self.chance, 0.05, 0.5)
        else:
            self.figures.at_failpoints[point] += 1
        self.up.clear()
        self.server.kill()
        self.figures.kills += 1
        self._arm()
        self.server.start()
        self.up.set()

    @property
    def _armed(self) -> bool:
        return "die-at=" in self.server.broken

    def _arm(self) -> None:
        wanted = self.failpoints and 2 * self.figures.at_failpoints.total() < self.figures.kills
        point = f"die-at={self.chance.choice(self.failpoints)}:{self.chance.randint(1, 20)}" if wanted else ""
        self.server.broken = ",".join(filter(None, (self.broken, point)))

    def _judge(self, clients: Sequence[Client]) -> None:
        figures = self.figures
        said = {key: told for client in clients for key, told in client.acknowledged.items()}
        attempted = {key for client in clients for key in client.attempted}
        stored: dict[str, list[str]] = {}
        for message in self.server.all_messages():
            stored.setdefault(message["idempotency_key"], []).append(message["id"])
        figures.acknowledged, figures.attempted = len(said), len(attempted)
        figures.missing = [key for key in said if key not in stored]
        figures.doubled = [key for key, found in stored.items() if len(found) > 1]
        figures.foreign = sorted(set(stored) - attempted)
        figures.other_id = [key for key, told in said.items() if key in stored and told != set(stored[key])]
        for client in clients:
            figures.retried += client.retried
            figures.batches += client.batches
            figures.unanswered_batches += client.unanswered
            figures.partial += client.partial


def intake_kills(
    folder: Path, kills: int, seed: int, broken: str = "", failpoints: Sequence[str] = ()
) -> Figures:
    """Run it; see `Figures.broken`."""
    return IntakeKills(folder, seed, broken, failpoints).run(kills)
