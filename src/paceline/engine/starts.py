"""Calls that are handed over and begin at their account's moment, not before.

Between the hand-over and that moment the account may have been closed: told to wait, paused, refused. Then the
call does not begin, and its message goes back to its place.
"""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from paceline.clock import Clock
from paceline.engine.alarm import Alarm
from paceline.model.messages import HandedOver
from paceline.pacing.lane import Release

Start = tuple[HandedOver, Release]

CHUNK = 64
"""Calls begun at a stretch. In between others have their turn: above all the next hand-overs are given to the store."""


SHARE = 8
"""Of very many calls this part is begun at a stretch: the store is busy for long, and they are late already."""


class Starts:
    """The calls that are about to begin, by their moment."""

    def __init__(
        self,
        clock: Clock,
        closed: Callable[[Release, int], bool],
        begin: Callable[[HandedOver, Release], None],
        withhold: Callable[[HandedOver, Release], None],
    ) -> None:
        """`closed` tells whether a call may not begin after all; `begin` starts it, `withhold` gives its message back."""
        self._clock = clock
        self._closed = closed
        self._begin = begin
        self._withhold = withhold
        self._waiting: list[tuple[int, int, Start]] = []
        self._alarm = Alarm(clock, self._due)
        self._going = False  # a chunk is begun, and the next one has its place in the loop
        self._stopped = False

    def put(self, starts: Sequence[Start]) -> None:
        """Begin what may begin, keep the rest until its moment."""
        waiting = self._waiting
        if waiting:
            for start in starts:
                heappush(waiting, (start[1].start_at, start[0].id, start))
        else:
            waiting += [(start[1].start_at, start[0].id, start) for start in starts]
            heapify(waiting)
        if not self._going:
            self._due()

    def stop(self) -> None:
        """Begin nothing more: what has not begun is given back."""
        self._stopped = True
        self._alarm.cancel()
        waiting, self._waiting = self._waiting, []
        for _, _, (message, release) in waiting:
            self._withhold(message, release)

    def forget(self) -> None:
        """What has not begun is nobody's here any more."""
        self._alarm.cancel()
        self._waiting.clear()

    def _due(self) -> None:
        self._going = False
        now = self._clock.now()
        waiting = self._waiting
        for _ in range(min(max(CHUNK, len(waiting) // SHARE), len(waiting))):
            if waiting[0][0] > now and not self._stopped:
                break
            message, release = heappop(waiting)[2]
            self._go(message, release, now)
        if not waiting:
            return
        if waiting[0][0] <= now or self._stopped:
            self._going = True
            asyncio.get_running_loop().call_soon(self._due)
        else:
            self._alarm.set(waiting[0][0])

    def _go(self, message: HandedOver, release: Release, now: int) -> None:
        if self._stopped or self._closed(release, now):
            self._withhold(message, release)
        else:
            self._begin(message, release)
