"""The wall clock is set, forward and back, while the server runs and between two runs of it.

Only the server's process sees the clock move. The witness has the machine's own; when the server's clock showed
what is reckoned afterwards from the steps, so that each arrival can be held against it.
"""

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.faults.breaks_time import set_offset
from tests.scenarios.ledger import (
    Arrival,
    Limit,
    by_sender,
    exceeded,
    ideal_count,
    taken_by_text,
    worst_count,
)
from tests.scenarios.server import Server, Witness, text_body

LIMITS: tuple[Limit, ...] = ((5, 2.0), (20, 10.0))
BUSY = 4
"""Accounts that always have more than their limits let out."""
TIMED = 2000
"""The sender of what is scheduled, without limits; the witness knows the busy ones as 1000 and on."""
BACKOFF_S = 3.0
"""Longer than a restart takes, so that a back-off that is cut short by one shows."""
HOUR, DAY = 3600.0, 86_400.0
ROUND: tuple[tuple[float, str], ...] = (
    (HOUR, ""), (-HOUR, ""), (-5.0, ""), (-5.0, ""), (-5.0, ""), (-HOUR, "kill"), (HOUR, "stop"),
    (30 * DAY, ""), (-30 * DAY, "kill"), (HOUR, "kill"), (-HOUR, "kill"),
)  # fmt: skip
"""Steps in seconds, and how the server is started again shortly after each, if at all."""
HOLD_S = 4.0
"""Between two steps: longer than it takes to notice one."""
DRAIN_S = 60.0
MORE = 0.4
"""This part of the run may be added to it: the busy accounts have so much left to send at most."""


@dataclass
class Figures:
    """What came out."""

    steps: int = 0
    restarts: int = 0
    scheduled: int = 0
    refused: int = 0
    early: list[str] = field(default_factory=list)
    late_s: float = 0.0
    expiring: int = 0
    expired_sent: list[str] = field(default_factory=list)
    retried: int = 0
    hasty: int = 0
    ratio: float = 0.0
    exceeded: int = 0
    stall_s: float = 0.0
    twice: int = 0
    lost: int = 0

    def lines(self) -> list[str]:
        return [
            f"steps, restarts         {self.steps}, {self.restarts}",
            f"scheduled, sent early   {self.scheduled}, {len(self.early)}",
            f"refused as past         {self.refused}",
            f"latest after its moment {self.late_s:.2f} s",
            f"expiring, of them sent  {self.expiring}, {len(self.expired_sent)}",
            f"retried, too soon       {self.retried}, {self.hasty}",
            f"fullest window          {self.ratio:.3f} of its limit, too early {self.exceeded}",
            f"longest stall           {self.stall_s:.2f} s",
            f"sent twice, lost        {self.twice}, {self.lost}",
        ]


class Wall:
    """The wall clock as the server sees it, now and at every moment since the beginning; in seconds."""

    def __init__(self, path: Path) -> None:
        """`path` is where the server's process reads it."""
        self._path = path
        self._base = (time.time_ns() - time.monotonic_ns()) / 1e9
        self.since, self.offsets = [0.0], [0.0]
        set_offset(path, 0)

    def step(self, seconds: float) -> None:
        """Set it. The moment that is noted lies behind the setting by a few microseconds."""
        self.offsets.append(self.offsets[-1] + seconds)
        set_offset(self._path, round(self.offsets[-1] * 1000))
        self.since.append(time.monotonic())

    def shown(self, moment: float) -> float:
        """What it showed at a moment of the monotonic clock."""
        return moment + self._base + self.offsets[bisect_right(self.since, moment) - 1]

    def reached(self, wanted: float, since: float, until: float) -> bool:
        """Whether it showed `wanted` or later at any moment in between."""
        ends = [start for start in self.since if since < start < until]
        before = [start + self._base + offset for start, offset in zip(self.since[1:], self.offsets, strict=False)
                  if start in ends]  # fmt: skip
        return max([*before, self.shown(until)]) >= wanted

    def passed(self, wanted: float, moment: float) -> float:
        """For how long, at a moment, it has shown `wanted` or later without a break; 0 when it does not."""
        passed = 0.0
        for index in range(bisect_right(self.since, moment) - 1, -1, -1):
            start = max(self.since[index], wanted - self._base - self.offsets[index])
            end = moment - passed
            if start > end:
                break
            passed = moment - start
            if start > self.since[index]:
                break
        return passed


@dataclass
class Timed:
    """A message that is scheduled: for which moment of the wall clock, and when (monotonic) it was given in."""

    at: float
    sent: float
    expires: bool = False


class Steps:
    """The run."""

    def __init__(self, folder: Path, rounds: Sequence[tuple[float, str]], broken: str) -> None:
        """`rounds` are steps as those of a `ROUND`."""
        self.folder, self.rounds = folder, rounds
        wall = folder / "wall"
        self.wall = Wall(wall)
        self.broken = ",".join(filter(None, (f"wall-from={wall}", broken)))
        self.figures = Figures()
        self.timed: dict[str, Timed] = {}
        self.busy: list[str] = []
        self.given = 0
        self.downs: list[tuple[float, float]] = []
        self.server: Server
        self.witness: Witness

    def run(self) -> Figures:
        arguments = ("--latency", "0.005-0.02", "--fail", "0.1")
        with (
            Witness(self.folder, *arguments) as self.witness,
            Server(self.folder, broken=self.broken) as self.server,
        ):
            self.server.start()
            self._fill()
            for seconds, restart in self.rounds:
                self._schedule()
                time.sleep(HOLD_S / 2)
                self.wall.step(seconds)
                self.figures.steps += 1
                time.sleep(HOLD_S / 2)
                if restart:
                    self._restart(restart)
            self.wall.step(60 * DAY)  # whatever is scheduled is due now
            self._drain()
            states = {message["text"]: message["state"] for message in self.server.all_messages()}
            self.server.stop()
            self._judge(self.witness.arrivals(), states)
        return self.figures

    def _fill(self) -> None:
        """Give every busy account more than it can send; a tenth of the calls fails and is tried again."""
        texts = [f"{most}/{seconds:g}s" for most, seconds in LIMITS]
        each = ideal_count(LIMITS, len(self.rounds) * (HOLD_S + 1.0)) + 20
        for index in range(BUSY):
            self.server.account(f"a{index}", self.witness, 1000 + index, limits=texts, concurrency=3)
        self.server.account("timed", self.witness, TIMED, concurrency=20)
        bodies = [self._body(f"a{index}", f"{index}-{n}") for n in range(each) for index in range(BUSY)]
        self.busy = [body["text"] for body in bodies]
        self.server.send_all(bodies)

    def _body(self, account: str, text: str, **more: Any) -> dict[str, Any]:
        again = {"type": "fixed", "delay": BACKOFF_S}
        return text_body(account, text, max_attempts=20, backoff=again, **more)

    def _schedule(self) -> None:
        """Messages for moments shortly before and after the next step, and for moments that only a step reaches."""
        bodies = []
        now = self.wall.shown(time.monotonic())
        for seconds in (0.5, 1.5, 2.5, 3.5, 6.0, HOUR / 2, HOUR - 1, HOUR + 3, 15 * DAY):
            text = self._next("t")
            at = round(now + seconds, 3)
            self.timed[text] = Timed(at, time.monotonic())
            bodies.append(self._body("timed", text, scheduled_at=_iso(at)))
        text, at = self._next("x"), round(now + HOUR / 3, 3)
        self.timed[text] = Timed(at, time.monotonic(), expires=True)
        bodies.append(self._body("timed", text, scheduled_at=_iso(at), expires_at=_iso(at + 10)))
        answer = self.server.api("POST", "/messages/batch", {"messages": bodies})
        for each in answer["rejected"]:
            self.figures.refused += 1
            del self.timed[bodies[each["index"]]["text"]]

    def _next(self, kind: str) -> str:
        self.given += 1
        return f"{kind}{self.given}"

    def _restart(self, how: str) -> None:
        down = time.monotonic()
        if how == "kill":
            self.server.kill()
        else:
            self.server.stop()
        self.server.start()
        self.downs.append((down, time.monotonic()))
        self.figures.restarts += 1

    def _drain(self) -> None:
        """Until nothing waits; what still does when the time is up is counted as lost."""
        end = time.monotonic() + DRAIN_S + len(self.rounds) * HOLD_S * MORE
        while time.monotonic() < end and self.server.count("pending", "scheduled", "retrying", "processing"):
            time.sleep(0.2)

    def _judge(self, arrivals: Sequence[Arrival], states: dict[str, str]) -> None:
        figures, taken = self.figures, taken_by_text(arrivals)
        figures.twice = sum(len(found) > 1 for found in taken.values())
        wanted = [*self.busy, *(text for text, each in self.timed.items() if not each.expires)]
        told = {text for text, state in states.items() if state == "uncertain"}
        figures.lost = sum(text not in taken and text not in told for text in wanted)
        self._judge_timed(arrivals)
        self._judge_retries(arrivals)
        new: dict[str, int] = {}  # by sender: until when it had messages that were never tried
        seen: set[str] = set()
        for arrival in arrivals:
            if arrival.text not in seen:
                seen.add(arrival.text)
                new[arrival.sender] = max(new.get(arrival.sender, 0), arrival.monotonic)
        for name, moments in by_sender(arrivals).items():
            if name != str(TIMED):
                self._judge_busy(moments, new[name])

    def _judge_timed(self, arrivals: Sequence[Arrival]) -> None:
        figures = self.figures
        figures.scheduled = sum(not each.expires for each in self.timed.values())
        figures.expiring = len(self.timed) - figures.scheduled
        for arrival in arrivals:
            each = self.timed.pop(arrival.text, None)  # the first arrival: a retry has a moment of its own
            if each is None:
                continue
            moment = arrival.monotonic / 1e9
            if each.expires:
                figures.expired_sent.append(arrival.text)
            if not self.wall.reached(each.at, each.sent, moment):
                figures.early.append(arrival.text)
            passed = min(self.wall.passed(each.at, moment), moment - each.sent)
            figures.late_s = max(figures.late_s, passed - self._down(moment - passed, moment))

    def _judge_retries(self, arrivals: Sequence[Arrival]) -> None:
        failed: dict[str, int] = {}
        for arrival in arrivals:
            before = failed.pop(arrival.text, None)
            if before is not None:
                self.figures.retried += 1
                self.figures.hasty += arrival.monotonic - before < BACKOFF_S * 1e9
            if arrival.answer == "fail":
                failed[arrival.text] = arrival.monotonic

    def _judge_busy(self, moments: Sequence[int], busy_until: int) -> None:
        figures = self.figures
        for limit in LIMITS:
            figures.ratio = max(figures.ratio, worst_count(moments, limit[1]) / limit[0])
            figures.exceeded += exceeded(moments, limit)
        for index in range(1, len(moments)):
            opens = [moments[index - n] / 1e9 + span for n, span in LIMITS if index >= n]
            begin, end = max(moments[index - 1] / 1e9, *opens, 0.0), moments[index] / 1e9
            if moments[index] <= busy_until:
                figures.stall_s = max(figures.stall_s, end - begin - self._down(begin, end))

    def _down(self, begin: float, end: float) -> float:
        """How long the server was away in this stretch of time."""
        return sum(max(0.0, min(end, up) - max(begin, down)) for down, up in self.downs)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def clock_steps(folder: Path, rounds: Sequence[tuple[float, str]] = ROUND, broken: str = "") -> Figures:
    """Run it."""
    return Steps(folder, rounds, broken).run()
