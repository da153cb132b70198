"""A flow: messages of one (tenant, campaign, queue, priority) that wait in one lane, first in, first out.

Only a bounded part of it is in memory; the rest stays in the store, behind the cursor.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from enum import Enum

from paceline.model.messages import Entry, FlowKey
from paceline.pacing.gates import SharedGate


class Prefetch:
    """How many entries of each flow are held in memory, so that all flows together stay within a budget.

    Together they hold at most twice the budget, or twice LEAST for each flow where that is more: a flow is cut down
    when it has twice its share, and all are whenever the shares have halved (`shrunk`), not at each new flow.
    """

    __slots__ = ("_cut", "budget", "flows", "low", "size")

    LEAST = 4
    MOST = 256
    EARLY = 3
    """A flow is read on with so many left at least: one that has none while it is read misses its turn."""

    def __init__(self, budget: int = 100_000) -> None:
        """`budget` is the number of entries for all flows together."""
        self.budget = budget
        self.flows = 0
        self.size = self.MOST
        self._cut = self.MOST
        self.low = self.MOST * 3 // 8

    def count(self, change: int) -> None:
        """Flows came or went: share the budget anew."""
        self.flows += change
        self.size = max(self.LEAST, min(self.MOST, self.budget // max(1, self.flows)))
        self.low = max(self.EARLY, self.size * 3 // 8)
        self._cut = max(self._cut, self.size)

    def shrunk(self) -> bool:
        """Whether the share has halved since all flows were cut down to it; then it is time to do so."""
        if self.size * 2 > self._cut:
            return False
        self._cut = self.size
        return True


class Standing(Enum):
    """Where a flow stands towards its turn."""

    IDLE = "idle"  # nothing in memory to send
    IN_TURN = "in turn"  # in the rotation
    PARKED = "parked"  # waits in the line of a closed gate


class Ready(list[Entry]):
    """Entries in order, next one first. A list, since a deque takes 700 bytes for the one entry of most flows."""

    __slots__ = ()

    def popleft(self) -> Entry:
        """Take the next one out; at most twice `Prefetch.MOST` move up, which costs less than a microsecond."""
        return self.pop(0)

    def appendleft(self, entry: Entry) -> None:
        """Put one in front."""
        self.insert(0, entry)


class Flow:
    """The part of a flow in memory, sorted by (turn, id), and where to read on."""

    __slots__ = (
        "aside", "cursor", "floor", "gates", "grown", "key", "keyed", "more", "number", "passes", "prefetch", "reading",
        "ready", "standing",
    )  # fmt: skip

    def __init__(
        self, number: int, key: FlowKey, gates: tuple[SharedGate, ...], keyed: bool, prefetch: Prefetch
    ) -> None:
        """`gates` apply to each message of the flow; `keyed`: limits for each recipient or group may apply too."""
        self.number = number
        self.prefetch = prefetch
        self.key = key
        self.gates = gates
        self.keyed = keyed
        self.ready = Ready()
        self.cursor = (-1, -1)
        self.more = False
        self.reading = False
        self.grown: tuple[int, int] | None = None  # the first place added behind the cursor while we read
        self.standing = Standing.IDLE
        self.passes: tuple[SharedGate, ...] = ()  # gates in whose lines it has stood, for its next send
        self.aside = 0  # entries in lines of gates, which come back
        self.floor = (-1, -1)  # the last place among them: the cursor never goes back behind it

    @property
    def wants(self) -> bool:
        """The store should be asked for more entries now."""
        return self.more and not self.reading and len(self.ready) < self.prefetch.low

    @property
    def short(self) -> bool:
        """It may run out before a read that takes its time is over."""
        return len(self.ready) * 8 < self.prefetch.size

    def offer(self, entry: Entry) -> bool:
        """A message became due. False when it stays in the store for now."""
        place = (entry.turn, entry.id)
        if place <= self.cursor:
            self._insert(entry)
            if len(self.ready) > 2 * self.prefetch.size:
                self.trim()
            return True
        if self.more or len(self.ready) >= self.prefetch.size:
            self.more = True
            self._grew(place)
            return False
        self.ready.append(entry)
        self.cursor = place
        return True

    def put_back(self, entry: Entry) -> None:
        """An entry that was taken out returns to its place, or stays in the store where we read on there."""
        place = _place(entry)
        if place > self.cursor:
            if self.more:
                self._grew(place)
                return
            self.cursor = place
        self._insert(entry)

    def trim(self) -> None:
        """Leave to the store what is more than this flow's share."""
        ready = self.ready
        if self.reading or len(ready) <= self.prefetch.size:
            return
        while len(ready) > self.prefetch.size and _place(ready[-1]) > self.floor:
            ready.pop()
            self.more = True
            self.cursor = max(_place(ready[-1]), self.floor)

    def set_aside(self, entry: Entry) -> None:
        """An entry went to the line of a gate, from where it comes back."""
        self.aside += 1
        self.floor = max(self.floor, _place(entry))

    def back(self, entry: Entry) -> None:
        """An entry came back from a line."""
        self.gone()
        self._insert(entry)

    def gone(self) -> None:
        """An entry that was aside is so no more."""
        self.aside -= 1
        if not self.aside:
            self.floor = (-1, -1)

    def begin_reading(self) -> tuple[int, int]:
        """The engine starts to read on; answers the place to read behind."""
        self.reading = True
        self.grown = None
        return self.cursor

    def filled(self, entries: Iterable[Entry], *, more: bool) -> None:
        """What was read behind the cursor; `more` tells whether the store held others."""
        self.reading = False
        grown = self.grown
        for entry in entries:
            place = _place(entry)
            if grown is not None and place > grown:
                break  # what was added there may be missing from what was read: read on from before it
            self.ready.append(entry)
            self.cursor = place
        self.more = more or grown is not None

    def _grew(self, place: tuple[int, int]) -> None:
        self.grown = place if self.grown is None else min(self.grown, place)

    def _insert(self, entry: Entry) -> None:
        ready = self.ready
        if not ready or _place(entry) < _place(ready[0]):
            ready.appendleft(entry)
        else:
            index = bisect_left(ready, _place(entry), key=_place)
            if index < len(ready) and ready[index].id == entry.id:
                return
            insort(ready, entry, key=_place)


def _place(entry: Entry) -> tuple[int, int]:
    return entry.turn, entry.id
