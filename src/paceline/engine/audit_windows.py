"""Whether a limit was kept, told from its sends alone, seen once in the order of their starts.

Two senses. A send arrived somewhere between its start and its finish. So what is *proven* is this: more than
`maximum` sends whose whole calls, start to finish, lie in less than one window arrived in that window, wherever in
their calls they did. What the dispatcher *promises* is more: a send occupies a place from its start until a window
after its finish, and starts only while fewer than `maximum` places are occupied. Who keeps the promise can never be
proven to have broken the limit.

Memory grows with `maximum` and with the calls that overlap, never with the journal.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from paceline.engine.audit_report import LimitFigures
from paceline.model.limits import Limit

EXTRA = 10_000
"""How far beyond its maximum a limit is counted exactly; a worse figure is a least one."""


class Places:
    """The places of a limit that are occupied."""

    __slots__ = ("_ends", "_most", "_span")

    def __init__(self, limit: Limit) -> None:
        """None is occupied."""
        self._span, self._most = limit.span_ms, limit.maximum + EXTRA
        self._ends: list[int] = []

    def start(self, started: int, finished: int) -> int:
        """A send starts, and ends later on; answers how many places are then occupied."""
        ends = self._ends
        while ends and ends[0] <= started:
            heappop(ends)
        heappush(ends, finished + self._span)
        if len(ends) > self._most:
            heappop(ends)
        return len(ends)

    def idle(self, now: int) -> bool:
        """Nothing that starts from `now` on meets an occupied place."""
        return all(end <= now for end in self._ends)


class Arrivals:
    """The most sends whose whole calls lie in less than one window."""

    __slots__ = ("_calls", "_most", "_span", "_told", "_under_way")

    def __init__(self, limit: Limit, told: Callable[[int, tuple[int, ...], int], None]) -> None:
        """`told` hears of each send that ends a window: how many it holds, its first and last message, the moment."""
        self._span, self._most = limit.span_ms, limit.maximum + EXTRA
        self._told = told
        self._under_way: list[tuple[int, int, int]] = []  # finish, least moment of the start, message
        self._calls: list[tuple[int, int]] = []  # least moment of the start, message

    def start(self, started: int, least: int, finished: int, message: int) -> None:
        """A send starts. `least` is the earliest moment at which it may have, where `started` is not certain."""
        while self._under_way and self._under_way[0][0] < started:
            self._ended(*heappop(self._under_way))
        heappush(self._under_way, (finished, least, message))

    def close(self) -> None:
        """There are no more sends."""
        while self._under_way:
            self._ended(*heappop(self._under_way))

    def _ended(self, finished: int, least: int, message: int) -> None:
        calls = self._calls
        while calls and calls[0][0] <= finished - self._span:
            heappop(calls)
        if least <= finished - self._span:
            return
        heappush(calls, (least, message))
        if len(calls) > self._most:
            heappop(calls)
        self._told(len(calls), (calls[0][1], message), finished)


class Watch:
    """One limit, or one of its recipients or groups, held against its sends.

    `proven(count, messages, at)` and `early(count, message, at)` hear of what is broken in the one and the other sense.
    """

    __slots__ = ("_arrivals", "_early", "_figures", "_key", "_places", "_proven")

    def __init__(
        self,
        limit: Limit,
        figures: LimitFigures,
        proven: Callable[[int, tuple[int, ...], int], None],
        early: Callable[[int, int, int], None],
        key: str = "",
    ) -> None:
        """`figures` is shared by all keys of a limit."""
        self._figures, self._proven, self._early, self._key = figures, proven, early, key
        self._places = Places(limit)
        self._arrivals = Arrivals(limit, self._window)

    def past(self, started: int, finished: int) -> None:
        """A send that still occupies its place, but is not judged itself."""
        self._places.start(started, finished)

    def start(self, started: int, least: int, finished: int, message: int) -> None:
        """A send under this limit, in the order of starts."""
        figures = self._figures
        occupied = self._places.start(started, finished)
        if occupied > figures.places:
            figures.places, figures.key = occupied, self._key
        if occupied > figures.maximum:
            self._early(occupied, message, started)
        self._arrivals.start(started, least, finished, message)

    def close(self) -> None:
        """There are no more sends."""
        self._arrivals.close()

    def idle(self, now: int) -> bool:
        """It may be forgotten (after `close`)."""
        return self._places.idle(now)

    def _window(self, count: int, messages: tuple[int, ...], at: int) -> None:
        if count > self._figures.arrivals:
            self._figures.arrivals = count
        if count > self._figures.maximum:
            self._proven(count, messages, at)
