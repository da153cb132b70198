"""One process: the real engine on a loop, a clock, a store and channels that are simulated. It can be cut anywhere.

Several nodes in one world are several of these on the same tables. Nothing but leases is missing for that, which
come with the store for many nodes: until then a world has one at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from paceline.engine.core import Options
from paceline.engine.keys import Caller
from paceline.engine.secrets import Vault
from paceline.engine.service import Service
from paceline.engine.threads import ThreadPool
from paceline.model.errors import PacelineError, UnavailableError
from tests.simulation.clock import ProcessClock
from tests.simulation.disk import SimulatedDisk, Weather
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import Knobs, SmallPrefetch
from tests.simulation.provider import Hook, Once, Provider, Safe
from tests.simulation.referee import Referee
from tests.simulation.store import Call, SimulatedStore
from tests.simulation.tables import Tables
from tests.simulation.world import World

ADMIN = Caller(None, "admin", "simulation")


class Node:
    """A process from its start to its end."""

    def __init__(
        self,
        world: World,
        tables: Tables,
        weather: Weather,
        provider: Provider,
        referee: Referee,
        knobs: Knobs,
    ) -> None:
        """Started: it recovers, and takes orders once it is `up`."""
        self.world, self.provider, self.referee = world, provider, referee
        self.state = "starting"
        self.loop = VirtualLoop(
            world.time, world.chance(f"loop {world.time.us}"), knobs.cost_us, knobs.coarse
        )
        self.loop.failed = lambda text: world.wrong(0, f"an error that nobody caught: {text}")
        self.clock = ProcessClock(world)
        self.disk = SimulatedDisk(world, weather, self._committed)
        self.store = SimulatedStore(tables, self.disk, knobs.most_rows)
        channels = (Once(provider), Safe(provider), Hook(provider))
        chance = world.chance(f"jitter {world.time.us}")
        self.service = Service(
            self.store, {channel.name: channel for channel in channels}, self.clock, Vault(bytes(32)),
            chance.random, lambda _url: None, Options(in_flight=knobs.in_flight), ThreadPool(), {}, _nothing,
        )  # fmt: skip
        self.core = self.service.core
        self.core.agenda.prefetch = SmallPrefetch(*knobs.prefetch)
        self.crash_in: int | None = None
        world.loops.append(self.loop)
        world.after_step = self._stepped
        world.note("process", "starts")
        referee.node = self
        self.loop.create_task(self._start())

    # -- life

    async def _start(self) -> None:
        try:
            await self.service.start(None)
        except UnavailableError as error:
            why = f"cannot start: {error}"
            self.world.later(0, lambda: self.end(why))
            return
        except Exception as error:
            self.world.wrong(4, f"the process cannot start: {type(error).__name__}: {error}")
            return
        self.state = "up"
        self.world.note("process", "is up")
        self.referee.started()

    def stop(self, grace: float) -> None:
        """As told by a signal: let calls in flight end, then leave."""
        if self.state == "up":
            self.state = "stopping"
            self.world.note("process", f"is told to stop, grace {grace} s")
            self.core.dispatcher.pause()
            self.loop.create_task(self._stop(grace))

    async def _stop(self, grace: float) -> None:
        await self.service.close(grace)
        self.referee.stopped()
        self.world.later(0, lambda: self.end("has stopped"))

    def end(self, how: str) -> None:
        """It is gone: nothing that was not on disk survives."""
        if self.state == "dead":
            return
        graceful = how == "has stopped"
        self.state = "dead"
        self.world.note("process", how)
        self.disk.die()
        self.provider.orphan()
        self.world.loops.remove(self.loop)
        self.world.after_step = lambda: None
        self.loop.cut()
        self.referee.died(graceful=graceful)

    def crash(self, steps: int) -> None:
        """Die after so many callbacks."""
        if self.state != "dead":
            self.crash_in = steps

    def _stepped(self) -> None:
        self.referee.stepped()
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.end("crashes")

    # -- orders

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what a client wants. It is lost with the process."""
        self.loop.create_task(work)

    def order(
        self,
        what: str,
        verb: Callable[[], Awaitable[Any]],
        then: Callable[[Any], None] = lambda _answer: None,
        failed: Callable[[PacelineError], None] = lambda _error: None,
    ) -> None:
        """Ask for something when it is up; `then` hears the answer, `failed` why there is none."""
        if self.state == "up":
            self.spawn(self._ordered(what, verb, then, failed))

    async def _ordered(
        self,
        what: str,
        verb: Callable[[], Awaitable[Any]],
        then: Callable[[Any], None],
        failed: Callable[[PacelineError], None],
    ) -> None:
        self.world.note("order", what)
        try:
            answer = await verb()
        except PacelineError as error:
            self.world.note("order", f"{what}: {type(error).__name__}: {error}")
            failed(error)
        except (Exception, asyncio.CancelledError) as error:
            if self.state == "dead":
                return  # it is being thrown away
            self.world.wrong(10, f"{what} ended with {type(error).__name__}: {error}")
        else:
            then(answer)

    def _committed(self, calls: Sequence[Call]) -> None:
        self.referee.committed(calls)


async def _nothing() -> None:
    pass
