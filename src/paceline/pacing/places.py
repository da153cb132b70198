"""What one node knows of places that several share: a first filter, so that the store seldom has to refuse.

Whether a place is free is decided in the store, in the transaction that hands over. A node knows its own calls and, once
the store refused something, when places that others used become free. Of calls that others have under way nobody knows
when they end: so it is tried again a little later.
"""

from array import array
from bisect import insort
from collections.abc import Sequence

from paceline.model.limits import Limit
from paceline.pacing.windows import NEVER, Window

AGAIN_MS = 50
"""How soon it is tried again where nobody knows when a place will be free."""
LONGEST_MS = 1_000
"""How long that becomes for single recipients and groups, of which there may be many."""
AT_ONCE = 64
"""Hand-overs that are tried then at most."""
YIELD_EVERY_MS = 2_500
"""So often a node that has more than its share lets others go first."""
REST_MS = 2 * AGAIN_MS
"""How long it leaves a place alone then: others look for one in between."""


class Sharing:
    """How many nodes send; one object for all windows of a node."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        """Alone."""
        self.nodes = 1


class SharedWindow(Window):
    """The places of a limit that several nodes share, as far as this one knows them. A span of 0 bounds calls under way.

    `others` are places that other nodes are taken to use until it is tried again.
    """

    __slots__ = ("_again", "_keyed", "_own", "_pause", "_sharing", "_yields", "_yields_at", "others")

    def __init__(self, limit: Limit, sharing: Sharing, *, keyed: bool = False) -> None:
        """`keyed`: it counts one recipient or group."""
        super().__init__(limit)
        self.others = 0
        self._sharing, self._keyed = sharing, keyed
        self._own: list[int] = []
        self._again = 0
        self._pause = AGAIN_MS
        self._yields = 0
        self._yields_at = 0

    def opens(self, now: int) -> int:
        """As every window; where only others have places, the moment at which it is tried again."""
        opens = self.known(now)
        if opens <= now or not self.others:
            return opens
        if now < self._again:
            return min(opens, self._again)
        over = self.flying + self.others + len(self.ends) - self.maximum
        self.others = max(0, self.others - over - min(AT_ONCE, self.others))
        self._again = now + self._pause
        return 0 if self.flying + self.others + len(self.ends) < self.maximum else self.known(now)

    def known(self, now: int) -> int:
        """The moment at which a place will be free by what is known; NEVER where nobody knows."""
        ends = self.ends
        while ends and ends[0] <= now:
            del ends[0]
        over = self.flying + self.others + len(ends) - self.maximum
        if over < 0:
            return 0
        return ends[over] if over < len(ends) else NEVER

    def used(self, now: int) -> int:
        """How many places are occupied, as far as is known."""
        self.known(now)
        return self.flying + self.others + len(self.ends)

    @property
    def left(self) -> int:
        """As every window."""
        return self.maximum - self.flying - self.others - len(self.ends)

    def occupy(self, finished: int) -> None:
        """A call ended. Who has more than a fair share leaves some places to others now and then."""
        end = finished + self.span
        if self._sharing.nodes > 1 and self._lets_go(finished):
            end += REST_MS
        if not self._keyed:
            self._pause = AGAIN_MS
        insort(self.ends, end)
        insort(self._own, end)

    def _lets_go(self, now: int) -> bool:
        own = self._own
        while own and own[0] <= now:
            del own[0]
        over = self.flying + 1 + len(own) - self.maximum / self._sharing.nodes
        if over <= 0:
            return False
        if now >= self._yields_at:
            self._yields_at = now + YIELD_EVERY_MS
            self._yields = max(1, int(over) // 2)
        if not self._yields:
            return False
        self._yields -= 1
        return True

    def tell(self, moments: Sequence[int], now: int) -> None:
        """The store refused at `now`: places that others used last become free at `moments`, and perhaps more of them.

        Those are left to the others for a moment, by whoever has a fair share already.
        """
        self._own = own = [end for end in self._own if end > now]
        has = self.flying + len(own)
        grace = 0 if has < self.maximum / self._sharing.nodes else AGAIN_MS
        self.ends = array("q", sorted([*own, *(moment + grace for moment in moments)]))
        self.others = max(0, self.maximum - self.flying - len(self.ends))
        self._again = now + self._pause
        if self._keyed:
            self._pause = min(2 * self._pause, LONGEST_MS)

    def _copy_to(self, twin: Window) -> None:
        super()._copy_to(twin)
        assert isinstance(twin, SharedWindow)  # noqa: S101 - made by `copy` from our own type
        twin.others, twin._own = self.others, []  # noqa: SLF001 - our own type
        twin._sharing, twin._keyed = Sharing(), self._keyed  # noqa: SLF001 - our own type
        twin._again, twin._pause = self._again, self._pause  # noqa: SLF001 - our own type
        twin._yields = twin._yields_at = 0  # noqa: SLF001 - our own type
