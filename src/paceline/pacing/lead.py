"""How early a message is handed over before its account opens: as long as a hand-over took at worst of late.

The worst counts and not the mean. Accounts whose windows open together come in waves; what one wave needed the
next one needs as well, however quiet it was in between.
"""

from math import ceil

LEAST_MS, MOST_MS = 2, 250
"""Bounds of a lead. It is paid for: a crash finds what was handed over and not yet begun as uncertain."""
MARGIN = 4
"""The next hand-over may take so many times as long as the worst."""
HALF_MS = 4_000
"""After this time a slow hand-over weighs half as much."""


class Lead:
    """Remembers how long hand-overs took, the slower the longer."""

    __slots__ = ("_at", "_took")

    def __init__(self) -> None:
        """No hand-over seen yet."""
        self._took = 0.0
        self._at = 0

    def learn(self, took: int, now: int) -> None:
        """A hand-over took `took` milliseconds from the decision until it was on disk."""
        self._took = max(float(took), self._weight(now))
        self._at = now

    def ms(self, now: int) -> int:
        """The lead to give at `now`, in milliseconds, from LEAST_MS to MOST_MS."""
        return max(LEAST_MS, min(MOST_MS, ceil(self._weight(now) * MARGIN)))

    def _weight(self, now: int) -> float:
        if not self._took:
            return 0.0
        return float(self._took * 0.5 ** ((now - self._at) / HALF_MS))
