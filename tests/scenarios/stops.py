"""Ask the server to end, again and again, while it takes in and sends; also twice, and with calls that outlast it."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.kills import Figures as Kept
from tests.scenarios.kills import Storm
from tests.scenarios.ledger import Arrival
from tests.scenarios.server import pause_of

ENOUGH_S, SHORT_S = 10.0, 0.3
LATENCY, SLOW = (0.005, 0.02), (0.3, 0.8)
PROMPT_S = 0.3
"""A call that begins so long after the signal was handed over after it."""
KINDS = ("plain", "twice", "short", "plain")


@dataclass
class Figures:
    """What came out; `kept` are the promises that hold over any end of a process."""

    kept: Kept = field(default_factory=Kept)
    stops: dict[str, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    exits: dict[str, list[float]] = field(default_factory=dict)
    needless: int = 0
    in_doubt: int = 0
    over_in_flight: int = 0
    late: int = 0

    @property
    def beyond(self) -> float:
        """The most seconds that an end took longer than its grace."""
        grace = {"plain": ENOUGH_S, "twice": SHORT_S, "short": SHORT_S}
        return max(seconds - grace[kind] for kind, found in self.exits.items() for seconds in found)

    def lines(self) -> list[str]:
        exits = {kind: f"{max(found):.2f}" for kind, found in self.exits.items()}
        return [
            f"stops                 {self.stops}",
            f"longest end, seconds  {exits}, beyond its grace {self.beyond:.2f}",
            f"exit codes            {sorted(set(self.codes))}",
            f"calls begun after it  {self.late}",
            f"uncertain though the grace sufficed  {self.needless}",
            f"uncertain otherwise   {self.in_doubt}, more than in flight: {self.over_in_flight}",
            f"lost, sent twice      {len(self.kept.lost)}, {len(self.kept.twice)}",
        ]


class Stops(Storm):
    """A storm of polite requests to end instead of kills."""

    def __init__(self, folder: Path, seed: int, broken: str = "") -> None:
        super().__init__(folder, seed, broken=broken)
        self.found = Figures(self.figures)
        self.signals: list[tuple[int, int]] = []

    def _kill_often(self, kills: int, low: float, high: float) -> None:
        kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
        known = 0
        self.server.stop()
        for kind, following in zip(["", *kinds], [*kinds, "plain"], strict=True):
            if kind:
                self.up.set()
                self._rest_when_crowded()
                pause_of(self.chance, low, high)
                known = self.server.count("uncertain")
                self._stop(kind)
            self.server.start("--set", f"grace={SHORT_S if following == 'short' else ENOUGH_S}")
            if kind:
                self._note(kind, self.server.count("uncertain") - known)
        self.up.set()

    def _stop(self, kind: str) -> None:
        if kind == "plain":  # calls that outlast everything but the grace
            self.witness.behave("", latency=SLOW)
            self.witness.wait(arrived=self.witness.report()["arrived"] + 1)
        else:  # calls that end only when they are cut off
            self.witness.behave("", hold=True, latency=LATENCY)
            self.witness.wait(open=1)
        assert self.server.process is not None
        child = self.server.process.child
        told = time.monotonic_ns()
        child.send_signal(signal.SIGTERM)
        if kind == "twice":
            pause_of(self.chance, 0.0, SHORT_S)
            child.send_signal(signal.SIGTERM)
        self.found.codes.append(self.server.process.end(0))
        over = time.monotonic_ns()
        self.up.clear()
        self.witness.release()
        self.witness.behave("", latency=LATENCY)
        self.signals.append((told, over))
        self.found.stops[kind] = self.found.stops.get(kind, 0) + 1
        self.found.exits.setdefault(kind, []).append((over - told) / 1e9)

    def _note(self, kind: str, new: int) -> None:
        if kind == "plain":
            self.found.needless += new
        else:
            self.found.in_doubt += new
            self.found.over_in_flight += new > self.figures.in_flight

    def _judge(self) -> None:
        super()._judge()
        self.found.late = late_calls(self.witness.arrivals(), self.signals)


def late_calls(arrivals: Sequence[Arrival], signals: Sequence[tuple[int, int]]) -> int:
    """How many calls began between a signal (and a little) and the end that it led to."""
    begun = sorted(arrival.began for arrival in arrivals)
    prompt = round(PROMPT_S * 1e9)
    return sum(told + prompt < moment <= over for told, over in signals for moment in begun)


def stops(folder: Path, times: int, seed: int, broken: str = "") -> Figures:
    """Run it."""
    run = Stops(folder, seed, broken)
    run.run(times, 0.05, 0.5)
    return run.found
