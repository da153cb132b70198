"""Exact sliding windows, in the receiver's sense.

The receiver may see a send at any moment between its start and its finish. So a send occupies its window
from its start until `span_ms` after its finish; a new one may start when fewer than `maximum` places are
occupied. Then no window of that length, wherever it starts, holds more than `maximum` arrivals.
"""

from array import array
from bisect import insort
from collections.abc import Callable, Iterable

from paceline.model.limits import Limit

NEVER = 1 << 62
"""Later than every moment: only an event (a settlement, a resume) can tell when it opens."""
_PAST = 32
"""So many moments that have passed may stay at the front of a window: taking them out moves all the others."""


class Window:
    """The occupied places of one limit. Times are milliseconds; `finish` is called in the order of time.

    Attributes:
        ends: when places of sends that ended are free again, in order; those before `first` have passed.
    """

    __slots__ = ("ends", "first", "flying", "limit", "maximum", "span")

    def __init__(self, limit: Limit) -> None:
        """Start with no place occupied; memory grows with use, up to `limit.maximum` numbers of 8 to 16 bytes."""
        self.limit = limit
        self.maximum = limit.maximum
        self.span = limit.span_ms
        self.flying = 0
        self.ends = array("q")
        self.first = 0

    def opens(self, now: int) -> int:
        """The moment from which one more may start: `now` or earlier when it may already."""
        ends, first = self.ends, self.first
        count = len(ends)
        if first < count and ends[first] <= now:
            first = self._pass(now)
            count = len(ends)
        place = self.flying + count - self.maximum
        if place < first:
            return 0
        return ends[place] if place < count else NEVER

    def used(self, now: int) -> int:
        """How many places are occupied."""
        self.opens(now)
        return self.flying + self.held

    @property
    def held(self) -> int:
        """How many places were occupied by sends that ended, when the window was last asked."""
        return len(self.ends) - self.first

    def end(self, place: int) -> int:
        """When one of the `held` places is free, the earliest first."""
        return self.ends[self.first + place]

    def known(self, now: int) -> int:
        """The moment at which a place will be free; NEVER where nobody knows."""
        return self.opens(now)

    @property
    def left(self) -> int:
        """How many places are free, after `opens` was asked."""
        return self.maximum - self.flying - self.held

    def take(self) -> None:
        """A send starts."""
        self.flying += 1

    def finish(self, at: int) -> None:
        """A send that was taken ended at `at`: its place is free `span` later."""
        self.flying -= 1
        self.occupy(at)

    def occupy(self, finished: int) -> None:
        """A send finished then; also used to rebuild the window from the journal."""
        end = finished + self.span
        ends = self.ends
        if ends and end < ends[-1]:
            insort(ends, end, lo=self.first)
        else:
            ends.append(end)

    def _pass(self, now: int) -> int:
        """Step over the moments that have passed; answers the first that has not."""
        ends, first = self.ends, self.first
        count = len(ends)
        while first < count and ends[first] <= now:
            first += 1
        if first == count or (first >= _PAST and first * 2 >= count):
            del ends[:first]
            first = 0
        self.first = first
        return first

    def withdraw(self) -> None:
        """A place was taken for a send that certainly never started."""
        self.flying -= 1

    def restore(self, finished: Iterable[int], flying: int) -> None:
        """Fill a new window with the history of sends: the moments they finished, and those under way."""
        self.flying = flying
        held = self.ends[self.first :]
        held.extend(f + self.span for f in finished)
        self.ends, self.first = array("q", sorted(held)), 0

    def copy(self) -> "Window":
        """An independent copy to play forward."""
        twin = object.__new__(type(self))
        self._copy_to(twin)
        return twin

    def _copy_to(self, twin: "Window") -> None:
        twin.limit, twin.maximum, twin.span, twin.flying = self.limit, self.maximum, self.span, self.flying
        twin.ends, twin.first = self.ends[self.first :], 0


class Spacing(Window):
    """At least an interval between one send's finish and the next one's start, lengthened by chance.

    `jitter` is a share: with 0.2 the pause is 1 to 1.2 intervals. It never shortens the interval.
    """

    __slots__ = ("chance", "jitter")

    def __init__(self, interval_ms: int, jitter: float, chance: Callable[[], float]) -> None:
        """`chance` gives numbers evenly spread over 0..1; it is handed in so that runs can be repeated."""
        super().__init__(Limit(1, interval_ms))
        self.jitter = jitter
        self.chance = chance

    def occupy(self, finished: int) -> None:
        """The next pause begins."""
        extra = int(self.span * self.jitter * self.chance()) if self.jitter else 0
        super().occupy(finished + extra)

    def _copy_to(self, twin: Window) -> None:
        super()._copy_to(twin)
        assert isinstance(twin, Spacing)  # noqa: S101 - made by `copy` from our own type
        twin.jitter, twin.chance = self.jitter, _middle


def _middle() -> float:
    """The mean of all chances: copies are played forward with it, so that looking ahead changes no run."""
    return 0.5
