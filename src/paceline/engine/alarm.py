"""A single timer for 'the next moment': setting it again replaces it, so nothing is ever polled."""

import asyncio
from collections.abc import Callable

from paceline.clock import Clock


class Alarm:
    """Calls `ring` once the clock has reached the moment that was set."""

    __slots__ = ("_clock", "_handle", "_moment", "_ring")

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        """Not set."""
        self._clock = clock
        self._ring = ring
        self._moment: int | None = None
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether it will ring."""
        return self._moment is not None

    def set(self, moment: int) -> None:
        """Ring at `moment` (milliseconds) instead of whenever it was set to."""
        if moment == self._moment:
            return
        self.cancel()
        self._moment = moment
        self._handle = asyncio.get_running_loop().call_later(self._clock.until(moment), self._due)

    def earlier(self, moment: int) -> None:
        """Ring at `moment` if that is before what it is set to."""
        if self._moment is None or moment < self._moment:
            self.set(moment)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._moment = None

    def _due(self) -> None:
        moment = self._moment
        self._handle = self._moment = None
        # A timer may fire a fraction early; what is decided by it may not.
        if moment is not None and self._clock.until(moment) > 0:
            self.set(moment)
        else:
            self._ring()
