"""Very many messages due in the same second, while the server is away at that moment; some expire before it is back.

Then: nothing that expired is sent, every account is paced from its first second on, an urgent newcomer does not
stand behind the backlog, and memory does not grow with it.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import by_sender, exceeded, taken_by_text, worst_count
from tests.scenarios.server import Server, Witness, text_body, until

ACCOUNTS = 20
EXPIRING = 10
"""One in so many messages expires while the server is away."""
URGENT = 8
SLOTS = 2
"""Calls of an account at once."""
BEFORE_URGENT = 2 * SLOTS - 1
"""What an urgent newcomer may find before it: the calls under way, and those that begin together with it."""
"""Calls of an account at once: what an urgent message may find under way."""
AWAY_S = 2.0


@dataclass
class Figures:
    """What came out."""

    messages: int = 0
    expiring: int = 0
    expired: int = 0
    expired_sent: list[str] = field(default_factory=list)
    early: int = 0
    lost: int = 0
    twice: int = 0
    ratio: float = 0.0
    exceeded: int = 0
    overtaken: list[int] = field(default_factory=list)
    first_s: float = 0.0
    first_second: float = 0.0
    drain_s: float = 0.0
    rss_ready: float = 0.0
    rss_most: float = 0.0

    def lines(self) -> list[str]:
        return [
            f"due in one second       {self.messages}, of which expire {self.expiring}",
            f"expired, of them sent   {self.expired}, {len(self.expired_sent)}",
            f"sent early              {self.early}",
            f"lost, sent twice        {self.lost}, {self.twice}",
            f"fullest window          {self.ratio:.3f} of its limit, too early {self.exceeded}",
            f"first send              {self.first_s:.2f} s after ready; first second {self.first_second:.0%} of the limit",
            f"went before an urgent   {max(self.overtaken, default=0)} at most",
            f"memory                  {self.rss_ready:.0f} MiB when ready, {self.rss_most:.0f} MiB at most",
            f"drained in              {self.drain_s:.1f} s",
        ]


class Due:
    """The run."""

    def __init__(self, folder: Path, messages: int, rate: int, broken: str = "") -> None:
        """`rate` a second for each account."""
        self.folder, self.rate, self.broken = folder, rate, broken
        self.figures = Figures(messages)
        self.over = threading.Event()
        self.server: Server
        self.witness: Witness

    def run(self) -> Figures:
        with Witness(self.folder) as self.witness, Server(self.folder, broken=self.broken) as self.server:
            self.server.start()
            for index in range(ACCOUNTS):
                limits = [f"{self.rate}/s", f"{self.rate * 10}/20s"]
                self.server.account(f"a{index}", self.witness, 1000 + index, limits=limits, concurrency=SLOTS)
            due = self._load()
            self.server.stop()
            until(
                lambda: datetime.now(UTC) > due + timedelta(seconds=AWAY_S),
                "they are due, and some expired",
                600,
            )
            self._drain(due)
            self.server.stop()
        return self.figures

    def _load(self) -> datetime:
        """Store all of them, due once they are stored; the moment."""
        figures = self.figures
        seconds = 3 + figures.messages / 1000
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        soon = (due + timedelta(seconds=AWAY_S / 2)).isoformat()
        bodies = []
        for number in range(figures.messages):
            account = f"a{number % ACCOUNTS}"
            expiring = number // ACCOUNTS % EXPIRING == 3
            figures.expiring += expiring
            more: dict[str, Any] = {"expires_at": soon} if expiring else {}
            text = f"{'x' if expiring else 'm'}{number}"
            bodies.append(text_body(account, text, scheduled_at=due.isoformat(), **more))
        self.server.send_all(bodies)
        assert datetime.now(UTC) < due, "storing them took longer than planned for"
        return due

    def _drain(self, due: datetime) -> None:
        figures = self.figures
        self.server.start()
        ready = time.monotonic_ns()
        figures.rss_ready = self._rss()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self.witness.wait(within=60, arrived=1)
        urgent = [self._urgent(number) for number in range(URGENT)]
        sent = figures.messages - figures.expiring + URGENT
        until(lambda: not self.server.count("pending", "scheduled", "processing"), "all have gone", 3600)
        self.over.set()
        watch.join()
        figures.rss_most = max(figures.rss_most, self._rss())
        self._judge(due, ready, urgent, sent)

    def _urgent(self, number: int) -> tuple[str, str, int]:
        """Send one that is urgent to a busy account; sender, text, and when it was acknowledged."""
        text = f"urgent-{number}"
        self.server.send(**text_body(f"a{number}", text, priority=10))
        return str(1000 + number), text, time.monotonic_ns()

    def _rss(self) -> float:
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            self.figures.rss_most = max(self.figures.rss_most, self._rss())

    def _judge(self, due: datetime, ready: int, urgent: list[tuple[str, str, int]], sent: int) -> None:
        figures, arrivals = self.figures, self.witness.arrivals()
        taken = taken_by_text(arrivals)
        states = Counter(message["state"] for message in self.server.all_messages())
        figures.expired = states["expired"]
        figures.expired_sent = [text for text in taken if text.startswith("x")]
        figures.lost = sent - sum(not text.startswith("x") for text in taken)
        figures.twice = sum(len(found) > 1 for found in taken.values())
        figures.early = sum(arrival.wall / 1e9 < due.timestamp() for arrival in arrivals)
        senders = by_sender(arrivals)
        for moments in senders.values():
            for limit in ((self.rate, 1.0), (self.rate * 10, 20.0)):
                figures.ratio = max(figures.ratio, worst_count(moments, limit[1]) / limit[0])
                figures.exceeded += exceeded(moments, limit)
        first = min(moments[0] for moments in senders.values())
        figures.first_s = (first - ready) / 1e9
        within = [
            sum(moment < moments[0] + 1e9 for moment in moments) / self.rate for moments in senders.values()
        ]
        figures.first_second = min(within)
        figures.drain_s = (max(moments[-1] for moments in senders.values()) - first) / 1e9
        for sender, text, told in urgent:
            arrived = taken[text][0].monotonic
            figures.overtaken.append(sum(told < moment < arrived for moment in senders[sender]))


def due_at_once(folder: Path, messages: int, rate: int, broken: str = "") -> Figures:
    """Run it."""
    return Due(folder, messages, rate, broken).run()
