"""When the next sends of one or several accounts start: their windows, copied and played forward."""

from collections.abc import Iterator, Sequence
from copy import copy
from heapq import heapify, heapreplace
from math import ceil

from paceline.pacing.gates import Gate
from paceline.pacing.quotas import Quota
from paceline.pacing.windows import Window

STEPS = 20_000
"""Sends played forward one by one at most; what lies beyond follows from the slowest limit."""


class Player:
    """A gate played forward: when its next sends start."""

    __slots__ = ("busy", "concurrency", "counters", "duration", "moment", "quotas", "windows")

    def __init__(self, gate: Gate, now: int, duration: int) -> None:
        """Each send is taken to last `duration` ms, those under way as well."""
        self.windows = [w.copy() for w in gate.windows]
        self.duration = max(0, duration)
        self.concurrency = gate.concurrency or 1 << 30
        self.moment = max(now, gate.rests_until)
        self.quotas = [copy(quota) for quota in gate.quotas]
        for quota in self.quotas:
            quota.flying = 0
        ends = now + self.duration
        for window in self.windows:
            for _ in range(window.flying):
                window.finish(ends)
        self.busy = [ends] * min(gate.flying, self.concurrency)
        self.counters: list[Window | Quota] = [*self.windows, *self.quotas]
        self._settle(now)

    def _settle(self, now: int) -> None:
        moment = max(self.moment, now)
        if len(self.busy) >= self.concurrency:
            moment = max(moment, min(self.busy))
        while True:
            opens = max((c.opens(moment) for c in self.counters), default=0)
            if opens <= moment:
                break
            moment = opens
        self.moment = moment

    def send(self) -> int:
        """The start of the next send; plays it."""
        start = self.moment
        ends = start + self.duration
        for window in self.windows:
            window.occupy(ends)
        for quota in self.quotas:
            quota.reserve(start)
            quota.settle(spent=True)
        if self.concurrency < 1 << 30:
            self.busy = [b for b in self.busy if b > start]
            self.busy.append(ends)
        self._settle(start)
        return start


def starts(gates: Sequence[Gate], now: int, duration: int) -> Iterator[int]:
    """The moments at which these accounts together start their next sends, as far as limits decide."""
    players = [(p.moment, i, p) for i, p in enumerate(Player(gate, now, duration) for gate in gates)]
    if not players:
        return
    heapify(players)
    while True:
        _, index, player = players[0]
        yield player.send()
        heapreplace(players, (player.moment, index, player))


_PERIOD_MS = {"day": 86_400_000, "month": 30 * 86_400_000}


class Cycle:
    """The limit that decides in the long run: `maximum` sends every `length` ms."""

    __slots__ = ("length", "maximum")

    def __init__(self, gate: Gate, duration: int) -> None:
        """The slowest of the gate's windows and quotas, or of its places for calls under way."""
        pairs = [(w.span + duration, w.maximum) for w in gate.windows]
        pairs += [(_PERIOD_MS[quota.period], quota.maximum) for quota in gate.quotas]
        if gate.concurrency is not None and duration:
            pairs.append((duration, gate.concurrency))
        self.length, self.maximum = max(pairs, key=lambda pair: pair[0] / pair[1], default=(0, 1))

    @property
    def rate(self) -> float:
        """Sends a millisecond; 0 where nothing limits them."""
        return self.maximum / self.length if self.length else 0.0


class Schedule:
    """The next sends of the accounts that may serve a message, known one by one for the first `steps`."""

    def __init__(self, gates: Sequence[Gate], now: int, duration: int, steps: int | None = None) -> None:
        """Nothing is played before it is asked for."""
        self._known: list[int] = []
        self._starts = starts(gates, now, duration)
        self._cycles = [Cycle(gate, max(0, duration)) for gate in gates]
        self._windows = [w.copy() for w in gates[0].windows] if len(gates) == 1 else []
        self._now, self._duration, self._steps = now, max(0, duration), STEPS if steps is None else steps

    def at(self, ahead: int) -> int | None:
        """When the send with `ahead` others before it starts; None without an account."""
        if not self._cycles:
            return None
        if ahead < self._steps:
            return self._played(ahead)
        length = max(cycle.length for cycle in self._cycles)
        if not length:
            return self._played(self._steps - 1)  # nothing limits them
        each_turn = length * sum(cycle.rate for cycle in self._cycles)
        beyond = ahead - self._steps + 1
        if each_turn <= self._steps:
            # In the long run the pattern of the slowest limit repeats, a cycle later each time.
            turns = ceil(beyond / each_turn)
            return self._played(max(0, round(ahead - turns * each_turn))) + turns * length
        last = self._played(self._steps - 1)
        if self._windows:  # one account: no limit alone lets it go before this
            return max(last, *(self._alone(window, ahead) for window in self._windows))
        return round(last + beyond * length / each_turn)

    def _played(self, index: int) -> int:
        while len(self._known) <= index:
            self._known.append(next(self._starts))
        return self._known[index]

    def _alone(self, window: Window, ahead: int) -> int:
        turns, place = divmod(ahead, window.maximum)
        used = window.used(self._now)
        free = max(0, window.maximum - used)
        length = window.span + self._duration
        if place < free:
            first = self._now
        elif place - free < window.held:
            first = window.end(place - free)
        else:
            first = self._now + length
        return first + turns * length
