"""Figures kept in memory as things happen: rates over the last minute, durations as histograms."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from paceline.clock import Clock
from paceline.engine.attempts import Ended
from paceline.model.messages import NewMessage
from paceline.model.states import State

SECONDS = 60
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, 3_600_000)
"""Upper bounds of the duration histograms, milliseconds."""


_COMPLETED = int(State.COMPLETED)

MOST_REASONS = 10_000
"""Different reasons of failure that are counted."""


class Histogram:
    """Counts of durations by bound; percentiles are read off by straight lines between bounds."""

    __slots__ = ("counts", "sum", "total")

    def __init__(self) -> None:
        """Empty."""
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.total = 0
        self.sum = 0

    def add(self, durations: Sequence[int]) -> None:
        """Count durations in milliseconds."""
        counts = self.counts
        for ms in durations:
            counts[bisect_left(BOUNDS_MS, ms)] += 1
        self.total += len(durations)
        self.sum += sum(durations)

    def percentile(self, share: float) -> float | None:
        """The duration that `share` (0..1) of all stay under; None when nothing was counted."""
        if not self.total:
            return None
        rank, seen = share * self.total, 0
        for index, count in enumerate(self.counts):
            if seen + count >= rank and count:
                low = BOUNDS_MS[index - 1] if index else 0
                high = BOUNDS_MS[index] if index < len(BOUNDS_MS) else low * 2
                return round(low + (high - low) * (rank - seen) / count, 3)
            seen += count
        return float(BOUNDS_MS[-1])


class Rate:
    """Events in each of the last 60 seconds."""

    __slots__ = ("_counts", "_second")

    def __init__(self) -> None:
        """Nothing happened yet."""
        self._counts = [0] * SECONDS
        self._second = 0

    def add(self, second: int, count: int = 1) -> None:
        """Something happened in this second."""
        if second != self._second:
            self._move(second)
        self._counts[second % SECONDS] += count

    def count(self, seconds: Sequence[int]) -> None:
        """Something happened in each of these seconds."""
        for second, count in Counter(seconds).items():
            self.add(second, count)

    def per_second(self, second: int, over: int = 10) -> float:
        """The mean over the last `over` whole seconds."""
        if second != self._second:
            self._move(second)
        return sum(self._counts[(second - 1 - i) % SECONDS] for i in range(over)) / over

    def series(self, second: int) -> list[int]:
        """The last 59 whole seconds, oldest first."""
        if second != self._second:
            self._move(second)
        return [self._counts[(second - i) % SECONDS] for i in range(SECONDS - 1, 0, -1)]

    def _move(self, second: int) -> None:
        if self._second and second > self._second:
            for passed in range(self._second + 1, min(second, self._second + SECONDS) + 1):
                self._counts[passed % SECONDS] = 0
        self._second = max(second, self._second)


class QueueFigures(msgspec.Struct):
    """What happened in one queue since the process started."""

    added: int = 0
    ended: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    sends: Histogram = msgspec.field(default_factory=Histogram)
    waits: Histogram = msgspec.field(default_factory=Histogram)


class Figures:
    """All figures of this process; exact counts of messages are the store's."""

    def __init__(self, clock: Clock) -> None:
        """Empty; `clock` gives the second in which something happens."""
        self._clock = clock
        self.added_rate, self.sent_rate, self.failed_rate = Rate(), Rate(), Rate()
        self.sends, self.waits = Histogram(), Histogram()
        self.queues: dict[str, QueueFigures] = defaultdict(QueueFigures)
        self.floods: dict[str, int] = defaultdict(int)
        self.circuits: dict[str, int] = defaultdict(int)  # openings; a failed probe opens it again
        self.failures: dict[tuple[str, str, str, str], int] = defaultdict(int)

    def added(self, rows: Sequence[NewMessage]) -> None:
        """Messages were taken in."""
        self.added_rate.count([row.created_at // 1000 for row in rows])
        for row in rows:
            self.queues[row.queue].added += 1

    def settled(self, ended: Sequence[Ended]) -> None:
        """Calls ended and are on disk."""
        sends: defaultdict[str, list[int]] = defaultdict(list)
        waits: defaultdict[str, list[int]] = defaultdict(list)
        seconds: list[int] = []
        for each in ended:
            if each.outcome is None:
                continue  # the call never began
            message, started, finished = each.message, each.started, each.finished
            sends[message.queue].append(finished - started)
            if each.verdict.settlement.state == _COMPLETED:
                seconds.append(finished // 1000)
                waits[message.queue].append(max(0, started - message.due_at))
            else:
                self._failed(each)
        self.sent_rate.count(seconds)
        for queue, durations in sends.items():
            self.queues[queue].sends.add(durations)
            self.sends.add(durations)
        for queue, durations in waits.items():
            figures = self.queues[queue]
            figures.ended["completed"] += len(durations)
            figures.waits.add(durations)
            self.waits.add(durations)

    def _failed(self, ended: Ended) -> None:
        made, message = ended.verdict.settlement, ended.message
        self.queues[message.queue].ended[_status(made.state, made.outcome)] += 1
        if made.outcome == "RateLimited":
            self.floods[message.account] += 1
        if made.state in (State.FAILED, State.EXPIRED, State.UNCERTAIN):
            self.failed_rate.add(ended.finished // 1000)
        reason = (message.tenant, message.channel, made.outcome, made.code or "")
        if made.code and (reason in self.failures or len(self.failures) < MOST_REASONS):
            self.failures[reason] += 1

    @property
    def second(self) -> int:
        """The present second."""
        return self._clock.now() // 1000


def _status(state: int, outcome: str) -> str:
    return "rate-limited" if outcome == "RateLimited" else State(state).label
