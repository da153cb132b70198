"""Calls that are handed over and begin at their account's moment, not before.

Between the hand-over and that moment the account may have been closed: told to wait, paused, refused. Then the
call does not begin, and its message goes back to its place.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from paceline.clock import Clock
from paceline.engine.alarm import Alarm
from paceline.model.messages import HandedOver
from paceline.pacing.lane import Release

Start = tuple[HandedOver, Release]


class Starts:
    """The calls that are about to begin, by their moment."""

    def __init__(
        self,
        clock: Clock,
        begin: Callable[[HandedOver, Release], None],
        withhold: Callable[[HandedOver, Release], None],
    ) -> None:
        """`begin` starts a call; `withhold` gives its message back."""
        self._clock = clock
        self._begin = begin
        self._withhold = withhold
        self._waiting: list[tuple[int, int, Start]] = []
        self._alarm = Alarm(clock, self._due)
        self._stopped = False

    def put(self, starts: Sequence[Start]) -> None:
        """Begin what may begin, keep the rest until its moment."""
        now = self._clock.now()
        for start in starts:
            message, release = start
            if release.start_at <= now or self._stopped:
                self._go(message, release, now)
            else:
                heappush(self._waiting, (release.start_at, message.id, start))
        if self._waiting:
            self._alarm.set(self._waiting[0][0])

    def stop(self) -> None:
        """Begin nothing more: what has not begun is given back."""
        self._stopped = True
        self._alarm.cancel()
        waiting, self._waiting = self._waiting, []
        for _, _, (message, release) in waiting:
            self._withhold(message, release)

    def _due(self) -> None:
        now = self._clock.now()
        while self._waiting and self._waiting[0][0] <= now:
            message, release = heappop(self._waiting)[2]
            self._go(message, release, now)
        if self._waiting:
            self._alarm.set(self._waiting[0][0])

    def _go(self, message: HandedOver, release: Release, now: int) -> None:
        account = release.account
        closed = account.blocked_until > now or account.paused or account.stopped or self._stopped
        if closed or any(gate.paused or gate.blocked_until > now for gate in release.gates):
            self._withhold(message, release)
        else:
            self._begin(message, release)
