"""A provider that is down for a while, with a backlog for several accounts, and then is back.

Half of the accounts are bots whose provider answers 500, half are webhooks whose receiver cuts every connection. What
is judged is what the provider saw: how often it was asked while it was down, and what came when it was back.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import Arrival, taken_by_text
from tests.scenarios.server import Server, Witness, drained, text_body

ACCOUNTS = 8
AFTER = 5
"""Failures in a row that open a circuit."""
SLOTS = 16
"""Calls of an account at once: when its provider goes down, so many are under way or handed over at most."""
LATENCY_S = 0.1
SPAN_S = 1.0
BEFORE_S = 2.0
"""How long all is well first."""
FIRST_S, LONGEST_S = 1.0, 60.0
"""The pauses before a probe, which double."""
ROUND = 0.9
"""Share of the latency by which a round trip may seem shorter: clocks are read a little apart."""


@dataclass
class Figures:
    """What came out."""

    messages: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    probes: dict[str, int] = field(default_factory=dict)
    most_probes: int = 0
    hasty: float = 9.9
    spread: float = 0.0
    pauses: float = 0.0
    first_s: float = 0.0
    hurried: int = 0
    busiest: float = 0.0
    busiest_all: float = 0.0
    drain: float = 0.0
    attempts: dict[str, int] = field(default_factory=dict)
    crossed: dict[str, int] = field(default_factory=dict)
    """By account: failures that may have been heard of before the last success from before it went down."""
    states: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    shown: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"asked when it went down   {self.asked}",
            f"asked while it was down   {self.probes}, {self.most_probes} at most by the pauses",
            f"least gap of two probes   {self.hasty:.3f} of the pause",
            f"apart by chance           {self.spread:.3f} of a pause of {self.pauses:.0f} s",
            f"first success after       {self.first_s:.2f} s",
            f"beyond a slow start       {self.hurried}",
            f"busiest second / mean     {self.busiest:.2f} of an account, {self.busiest_all:.2f} of all",
            f"drain time / ideal        {self.drain:.3f}",
            f"attempts lost             {self.attempts}",
            f"states at the end         {self.states}, lost {self.lost}, twice {self.twice}",
            f"not shown as they are     {self.shown}",
        ]


class Outage:
    """The run."""

    def __init__(self, folder: Path, messages: int, down_s: float, rate: int, broken: str = "") -> None:
        """`messages` over all accounts, each of which may send `rate` in a second."""
        self.folder, self.broken = folder, broken
        self.each, self.down_s, self.rate = messages // ACCOUNTS, down_s, rate
        self.figures = Figures(self.each * ACCOUNTS)
        self.bots = {f"b{index}": str(1000 + index) for index in range(ACCOUNTS // 2)}
        self.hooks = {f"h{index}": f"h{index}" for index in range(ACCOUNTS - ACCOUNTS // 2)}
        self.server: Server
        self.witness: Witness

    def run(self) -> Figures:
        latency = f"{LATENCY_S}-{LATENCY_S}"
        with (
            Witness(self.folder, "--latency", latency) as self.witness,
            Server(self.folder, broken=self.broken) as self.server,
        ):
            self.server.start()
            self._accounts()
            self.server.send_all([self._body(name, n) for n in range(self.each) for name in self._names()])
            time.sleep(BEFORE_S)
            went = self._go_down()
            time.sleep(self.down_s * 0.9)
            self._look()
            time.sleep(max(0.0, self.down_s - (time.monotonic_ns() - went) / 1e9))
            back = self._come_back()
            drained(self.server, LONGEST_S * 2 + 3 * self.each * (SPAN_S + LATENCY_S) / self.rate + 60)
            self._judge(went, back)
            self.server.stop()
        return self.figures

    def _names(self) -> dict[str, str]:
        """Accounts, and the names by which the witness knows them."""
        return {**self.bots, **self.hooks}

    def _accounts(self) -> None:
        more = {"limits": [f"{self.rate}/s"], "concurrency": SLOTS}
        for name, number in self.bots.items():
            self.server.account(name, self.witness, int(number), **more)
        for name in self.hooks:
            url = f"http://127.0.0.1:{self.witness.port}/hook/{name}"
            self.server.api(
                "PUT", f"/accounts/{name}", {"channel": "webhook", "settings": {"url": url}, **more}
            )

    def _body(self, name: str, number: int) -> dict[str, Any]:
        text = f"{name}/{number}"
        if name in self.bots:
            return text_body(name, text)
        return {"channel": "webhook", "account": name, "payload": {"text": text}}

    def _go_down(self) -> int:
        for number in self.bots.values():
            self.witness.behave(number, fail=1.0, latency=[LATENCY_S, LATENCY_S])
        for name in self.hooks:
            self.witness.behave(name, drop=1.0, latency=[LATENCY_S, LATENCY_S])
        return time.monotonic_ns()

    def _come_back(self) -> int:
        for known in self._names().values():
            self.witness.behave(known, latency=[LATENCY_S, LATENCY_S])
        return time.monotonic_ns()

    def _look(self) -> None:
        """An account says that it is unhealthy, and until when."""
        for name in self._names():
            shown = self.server.api("GET", f"/accounts/{name}")
            kinds = [reason["kind"] for reason in shown["reasons"]]
            if shown["state"] != "unhealthy" or kinds[:1] != ["circuit-open"]:
                self.figures.shown.append(f"{name}: {shown['state']} {kinds}")

    # -- what the provider saw

    def _judge(self, went: int, back: int) -> None:
        arrivals = self.witness.arrivals()
        self._judge_messages(arrivals)
        self.figures.most_probes = probes_within(self.down_s)
        gaps: defaultdict[int, list[float]] = defaultdict(list)
        for name, known in self._names().items():
            moments = [a.monotonic for a in arrivals if a.sender == known and a.answer in ("fail", "drop")]
            well = [
                a.monotonic for a in arrivals if a.sender == known and a.answer == "ok" and a.monotonic < back
            ]
            answered = max(well, default=0) + LATENCY_S * 1e9
            self.figures.crossed[name] = sum(moment < answered for moment in moments)
            self._judge_probes(name, moments, back, gaps)
        common = [index for index, found in gaps.items() if len(found) == ACCOUNTS]
        if common:
            last = max(common)
            self.figures.pauses = pause(last)
            self.figures.spread = max(gaps[last]) - min(gaps[last])
        self._judge_return([a for a in arrivals if a.answer == "ok" and a.monotonic > back], back)

    def _judge_messages(self, arrivals: list[Arrival]) -> None:
        figures, taken = self.figures, taken_by_text(arrivals)
        figures.lost = figures.messages - len(taken)
        figures.twice = sum(len(found) > 1 for found in taken.values())
        lost: defaultdict[str, int] = defaultdict(int)
        states: defaultdict[str, int] = defaultdict(int)
        for message in self.server.all_messages():
            states[message["state"]] += 1
            lost[message["account"]] += max(0, message["attempts"] - 1)
        figures.attempts, figures.states = dict(lost), dict(states)

    def _judge_probes(
        self, name: str, moments: list[int], back: int, gaps: defaultdict[int, list[float]]
    ) -> None:
        """`moments` at which the provider, being down, was asked: first by those under way, then by probes."""
        first = [m for m in moments if m - moments[0] < FIRST_S * 0.9e9]
        probes = moments[len(first) :]
        self.figures.asked[name], self.figures.probes[name] = len(first), len(probes)
        before = first[AFTER - 1 : AFTER]  # it cannot have opened before so many had failed
        for index, moment in enumerate(probes):
            if before:
                gap = (moment - before[0]) / 1e9 / pause(index)
                self.figures.hasty = min(self.figures.hasty, gap)
                gaps[index].append(gap)
            before = [moment]

    def _judge_return(self, taken: list[Arrival], back: int) -> None:
        figures = self.figures
        by_account: defaultdict[str, list[int]] = defaultdict(list)
        for arrival in taken:
            by_account[arrival.sender].append(arrival.monotonic)
        for moments in by_account.values():
            moments.sort()
            figures.first_s = max(figures.first_s, (moments[0] - back) / 1e9)
            figures.hurried += sum(
                moment < moments[0] + slow_start(index) * 1e9 for index, moment in enumerate(moments[:SLOTS])
            )
            figures.busiest = max(figures.busiest, busiest(moments))
            ideal = (len(moments) - 1) // self.rate * (SPAN_S + LATENCY_S)
            figures.drain = max(figures.drain, (moments[-1] - moments[0]) / 1e9 / max(ideal, SPAN_S))
        figures.busiest_all = busiest(sorted(moment for moments in by_account.values() for moment in moments))


def pause(index: int) -> float:
    """Seconds before the probe with this index, without what chance adds."""
    return float(min(FIRST_S * 2**index, LONGEST_S))


def probes_within(seconds: float) -> int:
    """How many probes the pauses allow in so many seconds."""
    count, passed = 0, pause(0)
    while passed <= seconds:
        count += 1
        passed += pause(count)
    return count


def slow_start(index: int) -> float:
    """Seconds after the first arrival before which no slow start lets the one with this index arrive."""
    rounds = (index + 1).bit_length() - 1
    return max(0.0, (rounds - 1) * LATENCY_S * ROUND)


def busiest(moments: list[int]) -> float:
    """Arrivals in the busiest second, divided by the mean of a second from the first to the last."""
    worst, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 1e9:
            first += 1
        worst = max(worst, last - first + 1)
    seconds = max(1.0, (moments[-1] - moments[0]) / 1e9)
    return worst / (len(moments) / seconds)


def outage(folder: Path, messages: int, down_s: float, rate: int, broken: str = "") -> Figures:
    """Run it."""
    return Outage(folder, messages, down_s, rate, broken).run()
