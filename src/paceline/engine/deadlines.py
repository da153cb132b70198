"""Until when each call may take. Calls of a quarter of a second share one timer: there may be thousands a second."""

import asyncio
from collections.abc import Callable

GRAIN_S = 0.25
"""Nobody is cut off before the deadline, and everybody at most this much later."""


class Deadlines:
    """The deadlines of the calls under way."""

    def __init__(self, missed: Callable[[int], None]) -> None:
        """`missed` is told the message whose call is not over in time."""
        self._missed = missed
        self._slots: dict[int, set[int]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def set(self, message: int, seconds: float) -> int:
        """A call begins that may take so many seconds; answers the slot to name when it is over."""
        loop = asyncio.get_running_loop()
        slot = int((loop.time() + seconds) / GRAIN_S) + 1
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = set()
            self._timers[slot] = loop.call_at(slot * GRAIN_S, self._due, slot)
        waiting.add(message)
        return slot

    def over(self, message: int, slot: int) -> None:
        """The call ended; nothing keeps the program awake for it any more."""
        waiting = self._slots.get(slot)
        if waiting is None:
            return
        waiting.discard(message)
        if not waiting:
            del self._slots[slot]
            self._timers.pop(slot).cancel()

    def _due(self, slot: int) -> None:
        del self._timers[slot]
        for message in self._slots.pop(slot):
            self._missed(message)
