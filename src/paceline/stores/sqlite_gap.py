"""Long reads leave a gap now and then, in which alone the write-ahead log can begin anew.

Each read keeps the log as it is until it ends. Where one search follows the other on every thread, some read is
always under way, and the log grows for as long as that goes on.
"""

from typing import Final

HOLD_S: Final = 0.25
"""For so long nobody begins after the last time that the writer asked: an idle writer holds up nobody."""
MOST_S: Final = 5.0
"""For so long at most in one piece; what still reads then does not read for us."""
REST_S: Final = 60.0
"""And then not again for so long."""


class Gap:
    """Asked for by the writer, heeded by the threads that search. Times are those of the event loop's clock, in s."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._until = 0.0
        self._began: float | None = None
        self._rests_until = 0.0

    def ask(self, now: float) -> bool:
        """Let no search begin for a moment; False where that has not helped, and nobody is held up any more."""
        if now < self._rests_until:
            return False
        if self._began is None or now > self._until + MOST_S:
            self._began = now
        if now - self._began > MOST_S:
            self.over()
            self._rests_until = now + REST_S
            return False
        self._until = now + HOLD_S
        return True

    def over(self) -> None:
        """Whoever waits may begin."""
        self._until, self._began = 0.0, None

    def left(self, now: float) -> float:
        """How long a search has to wait, unless the writer asks again."""
        return max(0.0, self._until - now)
