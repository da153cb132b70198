"""The only place that reads a clock.

`now` is wall time that never steps: the wall clock is read once, and from then on the monotonic clock moves
it. So decisions see neither a step forward nor one back while the process lives. `Steps` tells, at the next
start on the same boot of the machine, by how much the wall clock was moved in between.
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


class SystemClock:
    """The machine's clock, anchored when it is made."""

    def __init__(self) -> None:
        """Anchor the monotonic clock to the wall clock."""
        self._anchor = time.time_ns() - time.monotonic_ns()

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


def wall_ahead_ms(clock: Clock) -> int:
    """How far the wall clock is ahead of a clock that was anchored to it: what it was moved by since, in ms."""
    return time.time_ns() // 1_000_000 - clock.now() if isinstance(clock, SystemClock) else 0


class ManualClock:
    """A clock for tests and simulations: it moves only when told to."""

    def __init__(self, now: int = 0) -> None:
        """Start at `now`."""
        self.moment = now

    def now(self) -> int:
        """The moment it was set to."""
        return self.moment

    def ceiling(self) -> int:
        """The moment it was set to."""
        return self.moment

    def until(self, moment: int) -> float:
        """Seconds until `moment`, at least 0."""
        return max(0.0, (moment - self.moment) / 1000)

    def advance(self, ms: int) -> int:
        """Move forward; answers the new moment."""
        self.moment += ms
        return self.moment


def boot_reading() -> tuple[str, int] | None:
    """Which boot of the machine this is, and wall time minus time since boot in ms; None where unknown.

    While the boot stays the same the second figure changes only when somebody moves the wall clock.
    """
    source = Path("/proc/sys/kernel/random/boot_id")
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None or not source.exists():
        return None
    return source.read_text().strip(), (time.time_ns() - time.clock_gettime_ns(clock)) // 1_000_000
