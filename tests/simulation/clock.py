"""The clock of one simulated process: anchored to the wall clock when it is made, as the product's own is."""

from tests.simulation.world import EPOCH_MS, World


class ProcessClock:
    """Milliseconds since 1970; moved by true time alone."""

    def __init__(self, world: World) -> None:
        """Anchor it."""
        self._world = world
        self._time = world.time
        self.anchor_us = world.wall_us

    def _us(self) -> int:
        return EPOCH_MS * 1000 + self._time.us + self.anchor_us

    def now(self) -> int:
        """The present millisecond, rounded down."""
        return self._us() // 1000

    def ceiling(self) -> int:
        """The present millisecond, rounded up."""
        return -(-self._us() // 1000)

    def until(self, moment: int) -> float:
        """Seconds until `moment`, at least 0."""
        return max(0.0, (moment * 1000 - self._us()) / 1e6)

    def ahead(self) -> int:
        """How far the wall clock is ahead, in milliseconds rounded down: what it was set by since the anchoring."""
        return (self._world.wall_us - self.anchor_us) // 1000

    def follow(self, ms: float) -> None:
        """There is no other clock here."""

    def true_us(self, moment: int) -> int:
        """The true time at which this clock shows `moment`."""
        return moment * 1000 - EPOCH_MS * 1000 - self.anchor_us
