"""How long the simulated disk takes and when it fails; what of a commit survives when its process dies."""

from collections.abc import Callable, Sequence
from functools import partial

from paceline.model.errors import UnavailableError
from paceline.stores.calls import Kind
from tests.simulation.store import Call
from tests.simulation.world import World


class Weather:
    """The state of the disk at a moment; changed by faults."""

    def __init__(self) -> None:
        """A good disk."""
        self.commit_us = (300, 3_000)
        self.read_us = (50, 500)
        self.state = (
            "good"  # or 'tight': nothing new fits; 'full': nothing can be written; 'flaky': now and then
        )

    def calm(self) -> None:
        """A good disk again."""
        self.__init__()  # type: ignore[misc]  # the same state as a new one


class SimulatedDisk:
    """One process's commits and reads. After `die` nothing more is answered."""

    def __init__(self, world: World, weather: Weather, committed: Callable[[Sequence[Call]], None]) -> None:
        """`committed` is told what became durable."""
        self._world = world
        self._weather = weather
        self._chance = world.chance(f"disk {world.time.us}")
        self._committed = committed
        self._in_flight: Callable[[], None] | None = None
        self._dead = False
        self._reads_free = 0
        self.slowest_us = 0

    def commit(
        self, take: Callable[[], None], durable: Callable[[], None], answer: Callable[[], None]
    ) -> None:
        chance, world = self._chance, self._world
        wake = chance.randrange(20, 120)
        written = wake + chance.randrange(*self._weather.commit_us)
        told = written + chance.randrange(20, 200)
        self.slowest_us = max(self.slowest_us, told)
        world.later(wake, partial(self._taken, take, durable))
        world.later(written, partial(self._written, durable))
        world.later(told, partial(self._unless_dead, answer))

    def _taken(self, take: Callable[[], None], durable: Callable[[], None]) -> None:
        if not self._dead:
            take()
            self._in_flight = durable

    def _written(self, durable: Callable[[], None]) -> None:
        if not self._dead:
            self._in_flight = None
            durable()

    def _unless_dead(self, act: Callable[[], None]) -> None:
        if not self._dead:
            act()

    def read(self, look: Callable[[], None], answer: Callable[[], None], slow: bool) -> None:
        chance, world = self._chance, self._world
        begins = world.time.us if slow else max(world.time.us, self._reads_free)
        looks = begins + chance.randrange(*self._weather.read_us)
        answers = looks + chance.randrange(10, 100)
        if not slow:
            self._reads_free = answers
        self.slowest_us = max(self.slowest_us, answers - world.time.us)
        world.at(looks, partial(self._unless_dead, look))
        # An equal moment may be drawn in any order: the answer has to come behind the look.
        world.at(max(answers, looks + 1), partial(self._unless_dead, answer))

    def trouble(self, kinds: Sequence[Kind]) -> UnavailableError | None:
        state = self._weather.state
        fails = (
            state == "full"
            or (state == "tight" and Kind.ADD in kinds)
            or (state == "flaky" and self._chance.random() < 0.3)
        )
        return UnavailableError(f"the disk is {state}") if fails else None

    def committed(self, calls: Sequence[Call]) -> None:
        self._committed(calls)

    def die(self) -> None:
        """The process died: its commit in flight either happened or not."""
        durable, self._in_flight = self._in_flight, None
        if durable is not None and self._chance.random() < 0.5:
            self._world.note("disk", "the commit in flight was written all the same")
            durable()
        self._dead = True
