"""Kill the server at random while it takes in and sends; then hold what it promised against the witness's ledger.

Clients write down every text before they send it and every id after they were told 'yes'. A third of the single
messages carry an idempotency key and are sent again under it until somebody says 'yes'.
"""

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import NotAnsweredError, Server, Witness, drained, pause_of, text_body

ACCOUNTS = 20
WEBHOOKS = 0.15
KEYED = 0.33
PATIENCE_S = 5.0
"""How long a process may take to come to its failpoint before it is killed from outside."""
AHEAD = 2000
"""Clients rest while so many messages wait."""


@dataclass
class Figures:
    """What came out; `broken` names every promise that was."""

    kills: int = 0
    kills_while_starting: int = 0
    at_failpoints: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    attempted: int = 0
    taken: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    doubled_keys: list[str] = field(default_factory=list)
    false_endings: list[str] = field(default_factory=list)
    uncertain: int = 0
    uncertain_taken: int = 0
    worst_uncertain: int = 0
    in_flight: int = 0
    over_in_flight: int = 0
    hooks: int = 0
    hooks_again: int = 0
    hooks_changed_key: list[str] = field(default_factory=list)
    hooks_uncertain: int = 0
    two_hands: int = 0
    states: dict[str, int] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        promises = {
            "lost": self.lost,
            "sent twice": self.twice,
            "never sent by a client": self.foreign,
            "one idempotency key, two messages": self.doubled_keys,
            "said to be sent, not in the ledger": self.false_endings,
            "a webhook's id changed": self.hooks_changed_key,
            "more uncertain than calls in flight": ["kill"] * self.over_in_flight,
            "uncertain although a repeat is safe": ["hook"] * self.hooks_uncertain,
            "two calls of one message at once": ["call"] * self.two_hands,
        }
        return [f"{name}: {len(found)}, such as {found[:3]}" for name, found in promises.items() if found]

    def lines(self) -> list[str]:
        recovery = sorted(self.recoveries) or [0.0]
        return [
            f"kills                      {self.kills} ({self.kills_while_starting} of them while it was starting)",
            f"of them at failpoints      {dict(self.at_failpoints)}",
            f"acknowledged               {self.acknowledged} of {self.attempted} attempted",
            f"taken by the provider      {self.taken}",
            f"lost                       {len(self.lost)}",
            f"sent twice without a word  {len(self.twice)}",
            f"doubled by a repeated key  {len(self.doubled_keys)}",
            f"uncertain                  {self.uncertain}, of which the provider had taken {self.uncertain_taken}",
            f"most uncertain of a kill   {self.worst_uncertain}, with up to {self.in_flight} calls in flight",
            f"webhooks                   {self.hooks}, of which uncertain: {self.hooks_uncertain}",
            f"webhooks that came again   {self.hooks_again}, under another id: {len(self.hooks_changed_key)}",
            f"start to ready             median {statistics.median(recovery):.2f} s, most {recovery[-1]:.2f} s",
            f"states at the end          {self.states}",
        ]


class Client:
    """One thread that sends; it rests while the server is away."""

    def __init__(self, storm: "Storm", number: int) -> None:
        self.storm, self.number = storm, number
        self.chance = random.Random(f"{storm.seed}/{number}")
        self.attempted: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            while not self.storm.over.is_set():
                if self.storm.up.wait(0.1):
                    self._connected()
        except BaseException as error:
            self.failure = error

    def _connected(self) -> None:
        storm = self.storm
        try:
            with storm.server.line(timeout=5) as line:
                while storm.up.is_set() and not storm.over.is_set():
                    if storm.crowded.is_set():
                        storm.over.wait(0.05)
                    elif self.number % 2:
                        self._single(line)
                    else:
                        self._batch(line)
                    storm.over.wait(self.chance.uniform(0, 0.01 if self.number % 2 else 0.06))
        except NotAnsweredError:
            storm.over.wait(0.02)  # it was killed: what it did not acknowledge it did not promise

    def _text(self) -> str:
        text = f"{self.number}-{len(self.attempted)}"
        self.attempted.add(text)
        return text

    def _message(self) -> dict[str, Any]:
        if self.chance.random() < WEBHOOKS:
            url = f"http://127.0.0.1:{self.storm.witness.port}/hook/h{self.chance.randrange(5)}"
            return {"channel": "webhook", "to": url, "payload": {"text": self._text()}}
        return text_body(f"a{self.chance.randrange(ACCOUNTS)}", self._text())

    def _single(self, line: Any) -> None:
        message = self._message()
        text = message.get("text") or message["payload"]["text"]
        if self.chance.random() < KEYED:
            message["idempotency_key"] = text
            try:
                self._tell(text, line.ask("POST", "/api/v1/messages", message))
            except NotAnsweredError:
                self._again(text, message)
            return
        self._tell(text, line.ask("POST", "/api/v1/messages", message))

    def _again(self, text: str, message: dict[str, Any]) -> None:
        while not self.storm.over.is_set():
            if not self.storm.up.wait(0.1):
                continue
            try:
                with self.storm.server.line(timeout=5) as line:
                    self._tell(text, line.ask("POST", "/api/v1/messages", message))
                    return
            except NotAnsweredError:
                self.storm.over.wait(0.02)

    def _tell(self, text: str, reply: Any) -> None:
        if reply.status == 503:
            return  # starting or stopping: not acknowledged
        assert reply.status == 202, (reply.status, reply.body)
        self.acknowledged[text] = reply.json["id"]

    def _batch(self, line: Any) -> None:
        messages = [self._message() for _ in range(self.chance.randint(5, 40))]
        texts = [message.get("text") or message["payload"]["text"] for message in messages]
        reply = line.ask("POST", "/api/v1/messages/batch", {"messages": messages})
        if reply.status == 503:
            return
        assert reply.status == 202, (reply.status, reply.body)
        assert not reply.json["rejected"], reply.json["rejected"][:2]
        for each in reply.json["accepted"]:
            self.acknowledged[texts[each["index"]]] = each["id"]


class Storm:
    """The run."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        clients: int = 4,
        *,
        limits: tuple[str, ...] = (),
        broken: str = "",
        failpoints: Sequence[str] = (),
    ) -> None:
        """`failpoints` of `bench.faults` are the points of every second kill; the others are at random."""
        self.limits = limits
        self.seed, self.chance = seed, random.Random(seed)
        self.broken, self.failpoints, self.point = broken, failpoints, ""
        self.folder = folder
        self.up, self.over, self.crowded = threading.Event(), threading.Event(), threading.Event()
        self.figures = Figures()
        self.clients_wanted = clients
        self.server: Server
        self.witness: Witness
        self.clients: list[Client] = []

    def run(self, kills: int, low: float = 0.05, high: float = 0.7) -> Figures:
        """Kill so many times, each `low` to `high` seconds after it was ready."""
        latency = ("--latency", "0.005-0.02", "--seed", str(self.seed))
        with (
            Witness(self.folder, *latency) as self.witness,
            Server(self.folder, broken=self.broken) as self.server,
        ):
            self._set_up()
            try:
                self._kill_often(kills, low, high)
            finally:
                self.over.set()
                for client in self.clients:
                    client.thread.join(30)
            for client in self.clients:
                if client.failure is not None:
                    raise client.failure
            drained(self.server, 300)
            self._judge()
            self.server.stop()
        return self.figures

    def _set_up(self) -> None:
        self.server.start()
        for index in range(ACCOUNTS):
            concurrency = 2 + index % 3
            self.figures.in_flight += concurrency
            self.server.account(
                f"a{index}", self.witness, 1000 + index, concurrency=concurrency, limits=self.limits
            )
        self.clients = [Client(self, number) for number in range(self.clients_wanted)]
        for client in self.clients:
            client.thread.start()

    def _kill_often(self, kills: int, low: float, high: float) -> None:
        known, since = 0, 0
        while True:
            self.up.set()
            since += 1
            uncertain = self._count("uncertain")
            if uncertain is not None:
                self._note_uncertain(uncertain - known, since)
                known, since = uncertain, 0
            if self.figures.kills >= kills:
                return
            self._rest_when_crowded()
            if not self._dies_at_its_point():
                pause_of(self.chance, low, high)
            self.up.clear()
            self._kill()
            while self.figures.kills < kills and self.chance.random() < 0.1:
                # Once more, while it is still putting itself together.
                self._arm("recovering" if self.failpoints and self.chance.random() < 0.5 else "")
                self.server.spawn()
                if not self._dies_at_its_point():
                    pause_of(self.chance, 0.1, 1.0)
                self._kill()
                self.figures.kills_while_starting += 1
                since += 1
            since += self._start(kills)

    def _start(self, kills: int) -> int:
        """Start until it lives; how often it came to its point before it was ready."""
        died = 0
        while True:
            short = 2 * self.figures.at_failpoints.total() < self.figures.kills < kills
            self._arm(self.chance.choice(self.failpoints) if self.failpoints and short else "")
            try:
                self.figures.recoveries.append(self.server.start())
                return died
            except NotAnsweredError:
                assert self._dies_at_its_point(), "the server does not answer"
                self._kill()
                died += 1

    def _count(self, state: str) -> int | None:
        try:
            return self.server.count(state)
        except NotAnsweredError:
            assert self.point, "the server does not answer"
            return None  # it is at its point already

    def _arm(self, point: str) -> None:
        """Let the next process kill itself there, at a passage that nobody chose."""
        self.point = point
        passage = 1 if point == "recovering" else self.chance.randint(1, 40)
        self.server.broken = ",".join(filter(None, (self.broken, point and f"die-at={point}:{passage}")))

    def _dies_at_its_point(self) -> bool:
        """Wait for a process that is to kill itself; False where it has no point or does not come to it."""
        assert self.server.process is not None
        if not self.point or self.server.process.died(PATIENCE_S) is None:
            return False
        self.figures.at_failpoints[self.point] += 1
        return True

    def _kill(self) -> None:
        self.server.kill()
        self.figures.kills += 1

    def _note_uncertain(self, new: int, kills: int) -> None:
        self.figures.worst_uncertain = max(self.figures.worst_uncertain, -(-new // kills))
        self.figures.over_in_flight += new > kills * self.figures.in_flight

    def _rest_when_crowded(self) -> None:
        # What is uncertain may never have arrived: only the server can tell what still waits.
        waiting = self._count("pending")
        if waiting is None:
            return
        if waiting > AHEAD:
            self.crowded.set()
        else:
            self.crowded.clear()

    def _judge(self) -> None:
        figures = self.figures
        said = {text: id_ for client in self.clients for text, id_ in client.acknowledged.items()}
        attempted = {text for client in self.clients for text in client.attempted}
        stored = {message["id"]: message for message in self.server.all_messages()}
        taken = taken_by_text(self.witness.arrivals())
        figures.acknowledged, figures.attempted, figures.taken = len(said), len(attempted), len(taken)
        figures.states = dict(Counter(message["state"] for message in stored.values()))
        figures.two_hands = self.witness.report()["two_hands"]
        for text, id_ in said.items():
            if id_ not in stored or (text not in taken and stored[id_]["state"] not in _TOLD):
                figures.lost.append(text)
        figures.foreign = sorted(set(taken) - attempted)
        self._judge_stored(stored, taken)
        for text, arrivals in taken.items():
            if not arrivals[0].key:
                continue
            figures.hooks_again += len(arrivals) > 1
            if len({arrival.key for arrival in arrivals}) > 1:
                figures.hooks_changed_key.append(text)

    def _judge_stored(self, stored: dict[str, dict[str, Any]], taken: dict[str, Any]) -> None:
        figures = self.figures
        uncertain: set[str] = set()
        keys: Counter[str] = Counter()
        for message in stored.values():
            hook = message["channel"] == "webhook"
            text = message["payload"]["text"] if hook else message["text"]
            keys[message["idempotency_key"] or ""] += 1
            figures.hooks += hook
            if message["state"] == "completed" and text not in taken:
                figures.false_endings.append(text)
            if message["state"] == "uncertain":
                uncertain.add(text)
                figures.hooks_uncertain += hook
        figures.uncertain = len(uncertain)
        figures.uncertain_taken = len(uncertain & set(taken))
        figures.doubled_keys = [key for key, count in keys.items() if key and count > 1]
        figures.twice = [
            text
            for text, arrivals in taken.items()
            if len(arrivals) > 1 and not arrivals[0].key and text not in uncertain
        ]


_TOLD = frozenset({"uncertain", "failed", "pending", "scheduled", "retrying"})


def storm(folder: Path, kills: int, seed: int, broken: str = "", failpoints: Sequence[str] = ()) -> Figures:
    """Run it; see `Figures.broken`."""
    begun = time.monotonic()
    figures = Storm(folder, seed, broken=broken, failpoints=failpoints).run(kills)
    print(f"{kills} kills in {time.monotonic() - begun:.0f} s")
    return figures
