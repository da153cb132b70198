"""A full store, many accounts at their limits, a provider in every mood, and restarts: memory stays where it is.

What the process holds may depend on how many accounts there are, not on how many messages wait, nor on how long
it has been running. Nor may open files and threads.
"""

import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.figures_of import open_files, rss_mib, thread_count
from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import Server, Witness, text_body

LIMITS = ("10/min", "200/h")
HOT = 10
"""Accounts that four fifths of the waiting messages are for; the others share the rest."""
TEXT = "Your parcel is on its way and should be with you tomorrow. " * 8
RESTARTS = 4
SETTLING_S = 3.0
"""After a start: until the lanes have read what they hold of the backlog."""
WARM = 0.4
"""This share of the long stretch is warming up: caches and pools fill, and then stay."""
MOODS: tuple[dict[str, Any], ...] = (
    {},
    {"latency": (0.05, 0.3)},
    {"fail": 0.2},
    {"drop": 0.1, "cut": 0.05},
    {"flood_every": 20, "flood_for": 1.0},
)


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    accounts: int
    waiting: int
    scheduled: int
    seconds: float


@dataclass
class Sample:
    """One look at the process, `at` seconds into the long stretch."""

    at: float
    rss: float
    files: int
    threads: int


@dataclass
class Figures:
    """What came out; memory in MiB."""

    plan: Plan
    stored: int = 0
    acknowledged: int = 0
    sent: int = 0
    twice: int = 0
    rss_empty: float = 0.0
    rss_full: float = 0.0
    rss_filling: float = 0.0
    starts: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    rss_most: float = 0.0

    def of_stretch(self, first: float, last: float) -> list[Sample]:
        """Samples of a share of the long stretch."""
        end = self.samples[-1].at
        return [sample for sample in self.samples if first * end <= sample.at <= last * end]

    @property
    def grown(self) -> float:
        """How much more memory there is at the end than after the warming up."""
        early, late = self.of_stretch(WARM, WARM + 0.2), self.of_stretch(0.8, 1.0)
        return statistics.median(s.rss for s in late) - statistics.median(s.rss for s in early)

    @property
    def more_files(self) -> int:
        early, late = self.of_stretch(0, WARM), self.of_stretch(0.8, 1.0)
        return max(s.files for s in late) - max(s.files for s in early)

    @property
    def more_threads(self) -> int:
        early, late = self.of_stretch(0, WARM), self.of_stretch(0.8, 1.0)
        return max(s.threads for s in late) - max(s.threads for s in early)

    def lines(self) -> list[str]:
        plan, last = self.plan, self.samples[-1]
        return [
            f"{plan.accounts} accounts, {plan.waiting} waiting, {plan.scheduled} scheduled, {self.sent} sent",
            f"stored             {self.stored} of {self.acknowledged} acknowledged",
            f"sent twice         {self.twice}",
            f"memory after start {self.rss_empty:.1f} MiB without messages, {self.rss_full:.1f} MiB with all of them",
            f"while filling      {self.rss_filling:+.1f} MiB after the first third",
            f"in {last.at:.0f} s            {self.grown:+.1f} MiB after warming up, {self.rss_most:.1f} MiB at most",
            f"files, threads     {last.files} ({self.more_files:+d}), {last.threads} ({self.more_threads:+d})",
            f"start to ready     {', '.join(f'{each:.2f}' for each in self.starts)} s",
        ]


class Soak:
    """The run."""

    def __init__(self, folder: Path, plan: Plan, seed: int, broken: str) -> None:
        self.folder, self.plan, self.broken = folder, plan, broken
        self.chance = random.Random(seed)
        self.figures = Figures(plan)
        self.over = threading.Event()
        self.failure: BaseException | None = None
        self.server: Server
        self.witness: Witness

    def run(self) -> Figures:
        with (
            Witness(self.folder, "--latency", "0.001-0.01") as self.witness,
            Server(self.folder, broken=self.broken) as self.server,
        ):
            self.server.start()
            for index in range(self.plan.accounts):
                number = 1000 + index
                self.server.account(f"a{index}", self.witness, number, limits=list(LIMITS), concurrency=2)
            self.figures.rss_empty = self._restart(kill=False)
            self._fill()
            for number in range(RESTARTS):
                self.figures.rss_full = max(self.figures.rss_full, self._restart(kill=number % 2 == 0))
            self._stretch()
            self._judge()
        return self.figures

    def _restart(self, *, kill: bool) -> float:
        """Restart; the memory once it has settled."""
        if kill:
            self.server.kill()
        else:
            assert self.server.stop() == 0
        self.figures.starts.append(self.server.start())
        time.sleep(SETTLING_S)
        return self._rss()

    def _rss(self) -> float:
        now = rss_mib(self.server.pid)
        self.figures.rss_most = max(self.figures.rss_most, now)
        return now

    def _fill(self) -> None:
        """Store all of it in batches, the waiting ones first."""
        plan, third = self.plan, 0.0
        total = plan.waiting + plan.scheduled
        for start in range(0, total, 1000):
            bodies = [self._body(number) for number in range(start, min(total, start + 1000))]
            self.figures.acknowledged += len(self.server.send_all(bodies))
            if not third and start * 3 >= total:
                third = self._rss()
        self.figures.rss_filling = self._rss() - third

    def _body(self, number: int) -> dict[str, Any]:
        plan = self.plan
        hot = number % 5 and number < plan.waiting
        account = number % HOT if hot else number % plan.accounts
        more = {} if number < plan.waiting else {"delay": f"{3600 + number % 36_000}s"}
        return text_body(f"a{account}", f"{number} {TEXT}", **more)

    def _stretch(self) -> None:
        """A long time without a restart, with new messages, people who look, and a provider in changing moods."""
        works = (self._newcomers, self._looks, self._moods)
        threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        while (at := time.monotonic() - begun) < self.plan.seconds:
            pid = self.server.pid
            self.figures.samples.append(Sample(at, self._rss(), open_files(pid), thread_count(pid)))
            time.sleep(0.25)
        self.over.set()
        for thread in threads:
            thread.join(60)
        if self.failure is not None:
            raise self.failure

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:
            self.failure = error

    def _newcomers(self) -> None:
        number = 0
        with self.server.line() as line:
            while not self.over.wait(0.02):
                number += 1
                body = text_body(f"a{self.chance.randrange(self.plan.accounts)}", f"new-{number} {TEXT}")
                reply = line.ask("POST", "/api/v1/messages", body)
                assert reply.status == 202, (reply.status, reply.body[:200])
                self.figures.acknowledged += 1

    def _looks(self) -> None:
        paths = ("/stats/overview", "/messages?limit=20", "/accounts?limit=20", "/queues")
        with self.server.line() as line:
            while not self.over.wait(0.3):
                for path in paths:
                    reply = line.ask("GET", "/api/v1" + path)
                    assert reply.status == 200, (path, reply.status, reply.body[:200])

    def _moods(self) -> None:
        number = 0
        usual: dict[str, Any] = {
            "latency": (0.001, 0.01),
            "fail": 0.0,
            "drop": 0.0,
            "cut": 0.0,
            "flood_every": 0,
        }
        while not self.over.wait(max(0.5, self.plan.seconds / 40)):
            number += 1
            self.witness.behave(**(usual | MOODS[number % len(MOODS)]))
        self.witness.behave(**usual)

    def _judge(self) -> None:
        figures = self.figures
        figures.stored = self.server.count(*ALL)
        self.server.stop()
        taken = taken_by_text(self.witness.arrivals())
        figures.sent = len(taken)
        figures.twice = sum(len(found) > 1 for found in taken.values())


ALL: Sequence[str] = (
    "pending", "scheduled", "retrying", "processing", "completed", "failed", "cancelled", "expired", "uncertain",
)  # fmt: skip


def soak(folder: Path, plan: Plan, seed: int, broken: str = "") -> Figures:
    """Run it."""
    return Soak(folder, plan, seed, broken).run()
