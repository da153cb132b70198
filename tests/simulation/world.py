"""What is outside every process: true time, the machine's wall clock, chance, and everything that was written down."""

from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from tests.simulation.loop import Time, VirtualLoop

EPOCH_MS = 1_780_012_200_000
"""The machine's wall clock when a world begins: ten minutes to midnight, so that days change soon."""
SPIN = 50_000
"""Callbacks without the passing of time that are no longer work."""


class Violation(NamedTuple):
    """A rule of docs/invariants.md that did not hold."""

    rule: int
    us: int
    text: str


class World:
    """One seed's world. Processes are loops that it steps; there is one at a time, later there may be several."""

    def __init__(self, seed: int, *, history: bool = False) -> None:
        """`history`: write down what happens."""
        self.seed = seed
        self.time = Time()
        self.wall_us = 0  # what people added to the wall clock by setting it
        self.stretches: list[tuple[int, int]] = []  # what was added before, and until when in true time
        self.boot = 1
        self.loops: list[VirtualLoop] = []
        self.history: list[str] | None = [] if history else None
        self.violations: list[Violation] = []
        self.after_step: Callable[[], None] = lambda: None
        self._events: list[tuple[int, int, int, Callable[[], None]]] = []
        self._number = 0
        self._order = self.chance("order")
        self._same = 0

    def chance(self, name: str) -> Random:
        """A source of chance of its own for each part, so that one part's draws do not shift another's."""
        return Random(int.from_bytes(blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()))

    # -- writing down

    def note(self, who: str, what: str) -> None:
        """A line of the history."""
        if self.history is not None:
            self.history.append(f"{self.time.us / 1e6:14.6f} {who:<9} {what}")

    def wrong(self, rule: int, text: str) -> None:
        """A rule was broken."""
        self.violations.append(Violation(rule, self.time.us, text))
        self.note("!! rule", f"{rule}: {text}")

    # -- time

    @property
    def wall_ms(self) -> int:
        """What the machine's wall clock shows."""
        return EPOCH_MS + (self.time.us + self.wall_us) // 1000

    def set_wall(self, us: int) -> None:
        """Somebody sets the wall clock by so many microseconds."""
        self.stretches.append((self.wall_us, self.time.us))
        self.wall_us += us

    def latest_ms(self, since_us: int) -> int:
        """The latest moment that the wall clock has shown since a moment of true time."""
        shown = [added + until for added, until in self.stretches if until >= since_us]
        return EPOCH_MS + max([*shown, self.wall_us + self.time.us]) // 1000

    def at(self, us: int, act: Callable[[], None]) -> None:
        """Do something at a moment. Of what happens at the same moment the order is drawn."""
        self._number += 1
        heappush(self._events, (max(us, self.time.us), self._order.getrandbits(16), self._number, act))

    def later(self, us: int, act: Callable[[], None]) -> None:
        """Do something `us` from now."""
        self.at(self.time.us + us, act)

    def run(self, until: int, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until a moment, or until `done` when an event was over."""
        time, events = self.time, self._events
        while not self.violations:
            if events and events[0][0] <= time.us:
                heappop(events)[3]()
                if done():
                    return
                continue
            busy = next((loop for loop in self.loops if loop.ready), None)
            if busy is not None:
                before = time.us
                busy.step()
                self._same = self._same + 1 if time.us == before else 0
                if self._same > SPIN:
                    self.wrong(12, f"{SPIN} callbacks ran and no time passed")
                self.after_step()
                continue
            moments = [loop.wakes_us for loop in self.loops]
            if events:
                moments.append(events[0][0])
            first = min(moments, default=until + 1)  # nobody is there: nothing happens until then
            self._same = 0
            if first > until:
                time.us = until
                return
            time.us = max(time.us, first)
