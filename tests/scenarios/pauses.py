"""Stop the server's process in its tracks (SIGSTOP) for longer than all its time-outs and windows, then let it go on.

Calls are in flight when it stops, and the provider answers them meanwhile: when the process wakes, every answer
and every time-out is due at once.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import Arrival, Limit, by_sender, exceeded, taken_by_text, worst_count
from tests.scenarios.server import Server, Witness, drained, pause_of, text_body

LIMITS: tuple[tuple[Limit, ...], ...] = (((5, 2.0), (12, 4.0)), ((3, 0.5),), ((1, 0.7),), ())
TIMEOUT_S = 1.0
AWAY_S = 5.0
"""Longer than each window, the time-out of a call, its two seconds of patience, and a kept connection."""
HOOKS = 3


@dataclass
class Figures:
    """What came out."""

    pauses: int = 0
    in_flight: int = 0
    messages: int = 0
    accepted_late: int = 0
    uncertain: int = 0
    twice: list[str] = field(default_factory=list)
    changed_key: list[str] = field(default_factory=list)
    neither: list[str] = field(default_factory=list)
    false_endings: list[str] = field(default_factory=list)
    two_hands: int = 0
    exceeded: int = 0
    ratio: float = 0.0
    wakes: list[float] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [
            f"pauses            {self.pauses} of {AWAY_S:g} s, with {self.in_flight} calls in flight in all",
            f"told afterwards   {self.accepted_late} as accepted, {self.uncertain} as uncertain",
            f"neither           {len(self.neither)}",
            f"sent twice        {len(self.twice)}, webhooks under another id {len(self.changed_key)}",
            f"fullest window    {self.ratio:.3f} of its limit, too early {self.exceeded}",
            f"first call after  {max(self.wakes, default=0):.2f} s at most",
            f"states            {self.states}",
        ]


class Pauses:
    """The run."""

    def __init__(self, folder: Path, seed: int, broken: str = "") -> None:
        self.chance, self.figures = random.Random(seed), Figures()
        self.folder, self.broken = folder, broken
        self.woken: list[int] = []
        self.server: Server
        self.witness: Witness

    def run(self, times: int) -> Figures:
        with Witness(self.folder) as self.witness, Server(self.folder, broken=self.broken) as self.server:
            self.server.start()
            for index, limits in enumerate(LIMITS):
                texts = [f"{n}/{s:g}s" for n, s in limits]
                self.server.account(f"a{index}", self.witness, 1000 + index, limits=texts, concurrency=3)
            for turn in range(times):
                self._pause(turn)
            self.witness.behave("", latency=[0.001, 0.01])
            drained(self.server, 120)
            self._judge()
            self.server.stop()
        return self.figures

    def _pause(self, turn: int) -> None:
        self.witness.behave("", latency=[0.001, 0.01])
        self._send(turn)
        pause_of(self.chance, 0.1, 0.6)
        self.witness.behave("", hold=True, latency=[0.001, 0.01])
        self._send_hooks(turn)
        self.witness.wait(open=HOOKS + 1)
        assert self.server.process is not None
        child = self.server.process.child
        child.send_signal(signal.SIGSTOP)
        try:
            self.figures.in_flight += self.witness.report()["open"]
            self.witness.release()
            time.sleep(AWAY_S)
        finally:
            self.woken.append(time.monotonic_ns())
            child.send_signal(signal.SIGCONT)
        # Its calls were handed over before the stop; what is sent from here on was handed over after it.
        self.server.send(**text_body("a3", f"{turn}-woken"))
        drained(self.server, 60)
        self.figures.pauses += 1

    def _send(self, turn: int) -> None:
        bodies = [
            text_body(f"a{index}", f"{turn}-{index}-{number}", timeout=TIMEOUT_S)
            for index in range(len(LIMITS))
            for number in range(7)
        ]
        self.server.send_all(bodies)

    def _send_hooks(self, turn: int) -> None:
        to = f"http://127.0.0.1:{self.witness.port}/hook/h"
        self.server.send_all(
            [
                {"channel": "webhook", "to": to, "payload": {"text": f"{turn}-h-{n}"}, "timeout": TIMEOUT_S,
                 "backoff": {"type": "fixed", "delay": 1}}
                for n in range(HOOKS)
            ]
        )  # fmt: skip

    def _judge(self) -> None:
        figures, arrivals = self.figures, self.witness.arrivals()
        stored = {_text(message): message for message in self.server.all_messages()}
        taken = taken_by_text(arrivals)
        figures.messages = len(stored)
        figures.states = dict(Counter(message["state"] for message in stored.values()))
        figures.two_hands = self.witness.report()["two_hands"]
        for text, message in stored.items():
            found = taken.get(text, [])
            told = message["state"]
            hook = message["channel"] == "webhook"
            figures.uncertain += told == "uncertain"
            if told == "completed" and not found:
                figures.false_endings.append(text)
            if found and told not in {"completed", "uncertain"}:
                figures.neither.append(f"{text} {told}")
            if len(found) > 1 and not hook:
                figures.twice.append(text)
            if len({arrival.key for arrival in found}) > 1:
                figures.changed_key.append(text)
            figures.accepted_late += told == "completed" and _seconds(message) > AWAY_S / 2
        self._judge_windows(arrivals)

    def _judge_windows(self, arrivals: Sequence[Arrival]) -> None:
        senders = by_sender(arrivals)
        for woken in self.woken:
            self.figures.wakes.append(
                min(a.monotonic for a in arrivals if a.began > woken) / 1e9 - woken / 1e9
            )
        for index, limits in enumerate(LIMITS):
            moments = senders.get(str(1000 + index), [])
            for limit in limits:
                self.figures.exceeded += exceeded(moments, limit)
                self.figures.ratio = max(self.figures.ratio, worst_count(moments, limit[1]) / limit[0])


def _text(message: dict[str, Any]) -> str:
    text: str = message["payload"]["text"] if message["channel"] == "webhook" else message["text"]
    return text


def _seconds(message: dict[str, Any]) -> float:
    from tests.scenarios.foretold import moment

    return moment(message["finished_at"]) - moment(message["started_at"])


def pauses(folder: Path, times: int, seed: int, broken: str = "") -> Figures:
    """Run it."""
    return Pauses(folder, seed, broken).run(times)
