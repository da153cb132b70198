"""A flow: messages of one (tenant, campaign, queue, priority) that wait in one lane, first in, first out.

Only a bounded part of it is in memory; the rest stays in the store, behind the cursor.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from enum import Enum

from paceline.model.messages import Entry, FlowKey
from paceline.pacing.gates import SharedGate


class Prefetch:
    """How many entries of each flow are held in memory, so that all flows together stay within a budget.

    A flow may hold a few more while entries come back to it from the side.
    """

    __slots__ = ("budget", "flows", "low", "size")

    LEAST = 4
    MOST = 256

    def __init__(self, budget: int = 200_000) -> None:
        """`budget` is the number of entries for all flows together."""
        self.budget = budget
        self.flows = 0
        self.size = self.MOST
        self.low = self.MOST * 3 // 8

    def count(self, change: int) -> None:
        """Flows came or went: share the budget anew."""
        self.flows += change
        self.size = max(self.LEAST, min(self.MOST, self.budget // max(1, self.flows)))
        self.low = max(1, self.size * 3 // 8)


class Standing(Enum):
    """Where a flow stands towards its turn."""

    IDLE = "idle"  # nothing in memory to send
    IN_TURN = "in turn"  # in the rotation
    PARKED = "parked"  # waits in the line of a closed gate


class Flow:
    """The part of a flow in memory, sorted by (turn, id), and where to read on."""

    __slots__ = ("cursor", "gates", "grown", "key", "keyed", "more", "number", "prefetch", "reading", "ready", "standing")  # fmt: skip

    def __init__(
        self, number: int, key: FlowKey, gates: tuple[SharedGate, ...], keyed: bool, prefetch: Prefetch
    ) -> None:
        """`gates` apply to each message of the flow; `keyed`: limits for each recipient or group may apply too."""
        self.number = number
        self.prefetch = prefetch
        self.key = key
        self.gates = gates
        self.keyed = keyed
        self.ready: deque[Entry] = deque()
        self.cursor = (-1, -1)
        self.more = False
        self.reading = False
        self.grown = False
        self.standing = Standing.IDLE

    @property
    def wants(self) -> bool:
        """The store should be asked for more entries now."""
        return self.more and not self.reading and len(self.ready) < self.prefetch.low

    def offer(self, entry: Entry) -> bool:
        """A message became due. False when it stays in the store for now."""
        place = (entry.turn, entry.id)
        if place <= self.cursor:
            self._insert(entry)
            return True
        if self.more or len(self.ready) >= self.prefetch.size:
            self.more = True
            self.grown = True
            return False
        self.ready.append(entry)
        self.cursor = place
        return True

    def put_back(self, entry: Entry) -> None:
        """An entry that was taken out returns to its place."""
        self._insert(entry)
        self.cursor = max(self.cursor, _place(entry))

    def begin_reading(self) -> tuple[int, int]:
        """The engine starts to read on; answers the place to read behind."""
        self.reading = True
        self.grown = False
        return self.cursor

    def filled(self, entries: Iterable[Entry], *, more: bool) -> None:
        """What was read behind the cursor; `more` tells whether the store held others."""
        self.reading = False
        for entry in entries:
            self.ready.append(entry)
            self.cursor = (entry.turn, entry.id)
        # Something added while we read may be missing from what we read.
        self.more = more or self.grown

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
