"""What stands between a message and its send: one gate an account, and one for each wider scope.

A gate is a set of windows with a pause, a wait and a number of places for calls under way.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paceline.model.messages import Entry, FlowKey
from paceline.model.wide import Need
from paceline.pacing.quotas import Quota
from paceline.pacing.turns import Turns
from paceline.pacing.windows import NEVER, Window

PAUSED = "is paused"
WAIT = "wait "
"""How the scope of a gate begins that is closed for one account."""

if TYPE_CHECKING:
    from paceline.pacing.flows import Flow


class Gate:
    """Opens when every window has a place, nothing is paused, and fewer than `concurrency` calls run.

    Attributes:
        label: how the gate is named to people, for example ``"account a0"`` or ``"queue sms"``.
        concurrency: calls under way at most; None for any number.
        blocked_until: a wait the provider asked for, or 0.
        asked_until: how long it wanted us to wait, where that is longer than anybody waits.
        paused: a person closed it, or nothing can be sent behind it; `pause_text` tells which.
        held: closed for a moment by the engine itself while its history is being read.
    """

    __slots__ = (
        "asked_until",
        "blocked_until",
        "concurrency",
        "flying",
        "held",
        "label",
        "pause_text",
        "paused",
        "quotas",
        "windows",
    )

    def __init__(self, label: str, windows: Sequence[Window] = (), concurrency: int | None = None) -> None:
        """An open gate."""
        self.label = label
        self.windows = tuple(windows)
        self.quotas: tuple[Quota, ...] = ()
        self.concurrency = concurrency
        self.flying = 0
        self.blocked_until = 0
        self.asked_until = 0
        self.paused = False
        self.pause_text = PAUSED
        self.held = False

    def opens(self, now: int) -> int:
        """The moment from which one more may start: at most `now` when it may already, NEVER for an event."""
        if self.paused or self.held or (self.concurrency is not None and self.flying >= self.concurrency):
            return NEVER
        moment = self.blocked_until
        for window in self.windows:
            opens = window.opens(now)
            if opens > moment:
                moment = opens
        for quota in self.quotas:
            opens = quota.opens(now)
            if opens > moment:
                moment = opens
        return moment

    @property
    def rests_until(self) -> int:
        """Nothing goes before, whatever the windows say; 0 for no such moment."""
        return self.blocked_until

    def room(self, now: int) -> int:
        """How many sends may start at `now`; a large number where nothing counts them."""
        if self.opens(now) > now:
            return 0
        places = [w.left for w in self.windows]
        if self.concurrency is not None:
            places.append(self.concurrency - self.flying)
        places += [quota.left(now) for quota in self.quotas]
        return min(places, default=1 << 30)

    def take(self, now: int) -> None:
        """A send through this gate is decided."""
        self.flying += 1
        for window in self.windows:
            window.flying += 1
        for quota in self.quotas:
            quota.reserve(now)

    def finish(self, at: int, *, spent: bool) -> None:
        """A call ended; `spent` tells whether it uses up quota (a refusal does not)."""
        self.flying -= 1
        for window in self.windows:
            window.finish(at)
        for quota in self.quotas:
            quota.settle(spent=spent)

    def withdraw(self) -> None:
        """A decided send certainly never started."""
        self.flying -= 1
        for window in self.windows:
            window.withdraw()
        for quota in self.quotas:
            quota.settle(spent=False)

    def block(self, until: int, asked: int | None = None) -> None:
        """The provider said wait: a wait only ever extends. `asked` tells of one that was cut short."""
        self.blocked_until = max(self.blocked_until, until)
        self.asked_until = max(self.asked_until, asked or 0)


class Waiting:
    """In the line of a closed gate: a whole flow, or (`entry`) one entry of a flow that others may pass."""

    __slots__ = ("entry", "flow", "gone")

    def __init__(self, flow: "Flow", entry: Entry | None) -> None:
        """`entry` None: the flow with all it has."""
        self.flow = flow
        self.entry = entry
        self.gone = False  # another account sent it: nothing is left to let out

    @property
    def key(self) -> FlowKey:
        """Whose turn it is in the line follows from the flow."""
        return self.flow.key


class SharedGate(Gate):
    """A gate wider than an account: a queue, a tenant, a channel, everything, one recipient or one group.

    Whoever finds it closed waits in its line, which is let out in fair turns, the highest priority first.
    """

    __slots__ = ("key", "line", "moment", "need")

    def __init__(
        self, key: tuple[str, str], windows: Sequence[Window] = (), concurrency: int | None = None
    ) -> None:
        """`key` is (scope, name), for example ``("queue", "sms")``."""
        super().__init__(" ".join(part for part in key if part).replace("\x00", " "), windows, concurrency)
        self.key = key
        self.line: Turns[Waiting] = Turns()
        self.moment = NEVER
        # What a send through it takes in a store that several nodes share: a place of this limit, for this key.
        self.need: Need | None = None

    @property
    def of_one_account(self) -> bool:
        """Closed for one account only: a wait of a recipient or group that its provider asked for."""
        return self.key[0].startswith(WAIT)

    def idle(self, now: int) -> bool:
        """Nothing waits, flies or is occupied: a gate made on demand may be forgotten."""
        return not (
            self.line or self.flying or self.blocked_until > now or any(w.used(now) for w in self.windows)
        )
