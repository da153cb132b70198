"""The only place that reads a clock.

`now` is wall time that never steps: the wall clock is read once, and from then on the monotonic clock moves
it. So pacing sees neither a step forward nor one back while the process lives. What people named by the wall clock
(`scheduled_at`, `expires_at`) follows it: `ahead` tells by how much it was set since. `boot_reading` tells, at the
next start on the same boot of the machine, by how much it was set in between.
"""

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Milliseconds since 1970, UTC; never goes back."""

    def now(self) -> int:
        """The present millisecond, rounded down: nothing decided by it starts early."""

    def ceiling(self) -> int:
        """The present millisecond, rounded up: nothing that ended by it ended later."""

    def until(self, moment: int) -> float:
        """Seconds until a moment; 0 when it has passed."""

    def ahead(self) -> int:
        """How far the wall clock is ahead of `now`, in milliseconds: what it was set by since the anchoring."""

    def follow(self, ms: float) -> None:
        """Before anything was decided by it: a clock that many share is ahead of this one by so much."""


NOISE_MS = 1
"""A difference up to this comes from reading two clocks one after the other, in whole milliseconds."""
READINGS = 5
"""Pairs of readings from which the anchor is taken: in the best of them nothing came between."""


class SystemClock:
    """The machine's clock, anchored when it is made."""

    def __init__(self) -> None:
        """Anchor the monotonic clock to the wall clock."""
        # Read in this order a pair can only be too low, so that the greatest is the best.
        self._anchor = max(time.time_ns() - time.monotonic_ns() for _ in range(READINGS))
        self._leads = 0  # what the shared clock that it follows is ahead of the wall clock

    def follow(self, ms: float) -> None:
        """Go by a shared clock; the wall clock then counts as that far ahead as well, until somebody sets it."""
        self._leads += round(ms * 1_000_000)
        self._anchor += round(ms * 1_000_000)

    def _ns(self) -> int:
        return self._anchor + time.monotonic_ns()

    def now(self) -> int:
        """The present millisecond, rounded down."""
        return self._ns() // 1_000_000

    def ceiling(self) -> int:
        """The present millisecond, rounded up."""
        return -(-self._ns() // 1_000_000)

    def until(self, moment: int) -> float:
        """Seconds until `moment`, at least 0."""
        return max(0.0, (moment * 1_000_000 - self._ns()) / 1e9)

    def ahead(self) -> int:
        """How far the wall clock is ahead, in milliseconds, rounded down: nothing named by it starts early."""
        wall = time.time_ns() + self._leads  # first: what comes between makes it later, never earlier
        ms = (wall - self._ns()) // 1_000_000
        return ms if abs(ms) > NOISE_MS else 0


class ManualClock:
    """A clock for tests and simulations: it moves only when told to."""

    def __init__(self, now: int = 0) -> None:
        """Start at `now`, as the wall clock does."""
        self.moment = now
        self.step = 0

    def now(self) -> int:
        """The moment it was set to."""
        return self.moment

    def ceiling(self) -> int:
        """The moment it was set to."""
        return self.moment

    def until(self, moment: int) -> float:
        """Seconds until `moment`, at least 0."""
        return max(0.0, (moment - self.moment) / 1000)

    def ahead(self) -> int:
        """The step it was told of."""
        return self.step

    def follow(self, ms: float) -> None:
        """It moves only when told to."""

    def advance(self, ms: int) -> int:
        """Move forward; answers the new moment."""
        self.moment += ms
        return self.moment


def passed_ms() -> float:
    """Milliseconds that only ever grow, also while the process is stopped or the machine sleeps. For leases."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return (time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)) / 1e6


def boot_id() -> str:
    """Which boot of the machine this is, by which `passed_ms` counts; empty where that is not known."""
    reading = boot_reading()
    return reading[0] if reading is not None else ""


def boot_reading() -> tuple[str, int] | None:
    """Which boot of the machine this is, and wall time minus time since boot in ms; None where unknown.

    While the boot stays the same the second figure changes only when somebody moves the wall clock.
    """
    source = Path("/proc/sys/kernel/random/boot_id")
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None or not source.exists():
        return None
    return source.read_text().strip(), (time.time_ns() - time.clock_gettime_ns(clock)) // 1_000_000
