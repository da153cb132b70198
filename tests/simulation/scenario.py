"""One seed from beginning to end: a storm of work and faults, then calm, in which everything has to end."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

import msgspec
import structlog

from paceline.engine import dispatcher, messages, moves, recovery, upkeep
from paceline.engine.loop_watch import LoopWatch
from paceline.model.ids import to_text
from paceline.model.messages import NOBODY
from paceline.model.states import State
from paceline.pacing import agenda
from tests.simulation import plan as plans
from tests.simulation.clients import Clients
from tests.simulation.disk import Weather
from tests.simulation.fairness import Fairness
from tests.simulation.faults import Faults
from tests.simulation.node import ADMIN, Node
from tests.simulation.provider import Moods, Provider
from tests.simulation.referee import Referee
from tests.simulation.tables import WAITING, Tables
from tests.simulation.world import EPOCH_MS, Violation, World

S = 1_000_000
DRAIN_S = 6 * 3600
REST_S = 600
"""Of rest, in which at most one callback a second may run: alarms ring once more for what ended before them."""
QUOTA_DRAIN_S = 8 * 86_400


class Result(NamedTuple):
    """What became of a seed."""

    seed: int
    violations: list[Violation]
    virtual_us: int
    messages: int
    arrivals: int
    crashes: int
    starts: int
    history: list[str]


class Scenario:
    """A seed's world and what happens in it."""

    def __init__(self, seed: int, *, history: bool = False) -> None:
        """Drawn, not begun."""
        self.world = World(seed, history=history)
        self.plan = plans.draw(self.world.chance("plan"))
        self.tables = Tables()
        self.weather, self.moods = Weather(), Moods()
        self.provider = Provider(self.world, self.moods)
        self.referee = Referee(self.world, self.tables, self.provider)
        self.node: Node | None = None
        self.calm = False
        self.gone: set[str] = set()  # accounts that are removed
        self.starts = 0
        self.clients = Clients(self)
        self.faults = Faults(self)
        self._set_up = False
        knobs = self.plan.knobs
        self.referee.pace.prompt = knobs.batch > 100 and knobs.in_flight > 100 and knobs.most_rows > 1000

    def run(self) -> Result:
        """The whole life."""
        with _quiet(), _constants(self.world, self.plan.knobs):
            try:
                self._live()
            finally:
                if self.node is not None:
                    self.node.end("is left behind")
        world = self.world
        return Result(
            world.seed, world.violations, world.time.us, len(self.tables.messages), len(self.provider.ledger),
            self.referee.crashes, self.starts, world.history or [],
        )  # fmt: skip

    def _live(self) -> None:
        world, plan = self.world, self.plan
        chance = world.chance("story")
        self.boot()
        world.run(30 * S, lambda: self._set_up)
        begin = world.time.us
        storm = plan.storm_s * S
        singles = plan.messages // 2
        for _ in range(singles):
            world.at(begin + chance.randrange(storm), self.clients.send_one)
        for _ in range(plan.messages // 12):
            world.at(begin + chance.randrange(storm), self.clients.send_batch)
        for _ in range(3):
            world.at(begin + chance.randrange(storm), self.clients.send_bad)
        for _ in range(plan.faults):
            world.at(begin + chance.randrange(storm), self.clients.meddle)
        for _ in range(12):
            world.at(begin + chance.randrange(storm), self.clients.ask)
        self.faults.schedule(chance, begin, storm, plan.faults)
        self.faults.outages(begin, storm)
        world.run(begin + storm)
        self._heal(chance)
        self._drain(chance)
        if not world.violations and chance.random() < 0.4:
            Fairness(self).run()
        if not world.violations:
            self._rest()
        if not world.violations:
            self.referee.finish()

    # -- the process

    def boot(self) -> None:
        """Start a process where there is none."""
        if self.node is None or self.node.state == "dead":
            self.starts += 1
            self.faults.mend_clock()
            self.node = Node(
                self.world, self.tables, self.weather, self.provider, self.referee, self.plan.knobs
            )
            self.world.later(2000, self._configure)

    def _configure(self) -> None:
        """On the first start that gets so far, somebody sets everything up."""
        node = self.node
        if self._set_up or node is None or node.state == "dead":
            return
        if node.state != "up":
            self.world.later(2000, self._configure)
            return
        node.order("set up", self._put_all, lambda _answer: self._ready(node))

    async def _put_all(self) -> None:
        node, plan = self.node, self.plan
        assert node is not None
        for name, body in plan.queues.items():
            await node.service.queues.put(ADMIN, name, body)
        for account in plan.accounts:
            caller = msgspec.structs.replace(
                ADMIN, tenant=None if account.owner == "default" else account.owner
            )
            await node.service.accounts.put(caller, account.name, account.body)
        for name, body in plan.rules.items():
            await node.service.limits.put(ADMIN, name, body)

    def _ready(self, node: Node) -> None:
        self._set_up = True
        self.world.later(0, lambda: None)  # whoever waits for it looks after each event
        self.referee.pace.force(node)

    # -- changes by people

    def _changed(self, node: Node) -> None:
        self.referee.version += 1
        if node.state == "up":
            self.referee.pace.force(node)
            for id_ in node.core.directory.accounts:
                self.referee.pace.changed[id_] = self.world.time.us

    def _order(self, what: str, verb: Any) -> None:
        node = self.node
        if node is None or node.state != "up":
            return
        self.referee.version += 1
        self.referee.pace.unsettle()
        node.order(what, verb, lambda _a: self._changed(node), lambda _e: self._changed(node))

    def change_account(self, chance: Random) -> None:
        """Pause, resume, remove, put back or limit an account otherwise."""
        node = self.node
        assert node is not None
        account = chance.choice(self.plan.accounts)
        caller = msgspec.structs.replace(ADMIN, tenant=None if account.owner == "default" else account.owner)
        accounts, name = node.service.accounts, account.name
        what = chance.choice(["pause", "resume", "limits", "limits", "remove"])
        if what == "pause":
            self._order(f"pause {name}", lambda: accounts.pause(caller, name))
        elif what == "resume":
            self._order(f"resume {name}", lambda: accounts.resume(caller, name))
        elif what == "limits" and name not in self.gone:
            drawn = plans.draw_account(chance, account.owner, name, quota="quota" in account.body)
            body = {**drawn.body, "channel": account.body["channel"], "pool": account.body["pool"]}
            self._order(f"limit {name} by {body}", lambda: accounts.put(caller, name, body))
        elif what == "remove" and name not in self.gone and not self.calm:
            self.gone.add(name)
            self._order(f"remove {name}", lambda: accounts.delete(caller, name))
            self.world.later(chance.randrange(20) * S, lambda: self.put_back(name))

    def put_back(self, name: str) -> None:
        """A removed account comes back as it was."""
        node = self.node
        account = next(each for each in self.plan.accounts if each.name == name)
        if node is None or node.state != "up":
            return
        caller = msgspec.structs.replace(ADMIN, tenant=None if account.owner == "default" else account.owner)
        self._order(f"put back {name}", lambda: node.service.accounts.put(caller, name, account.body))

    def change_rule(self, chance: Random) -> None:
        """Set or remove a wide limit."""
        node = self.node
        assert node is not None
        name = f"w{chance.randrange(3)}"
        limits = node.service.limits
        if chance.random() < 0.3:
            self._order(f"remove limit {name}", lambda: limits.delete(ADMIN, name))
        else:
            body = plans.draw_rule(chance)
            self._order(f"set limit {name} to {body}", lambda: limits.put(ADMIN, name, body))

    # -- what was foretold: rule 13

    def heard(self, id_: int, answer: tuple[int | None, list[Any]], version: int) -> None:
        """Somebody asked why."""
        node, kept = self.node, self.tables.messages.get(id_)
        if node is None or kept is None or kept.state not in WAITING or version != self.referee.version:
            return
        eta, reasons = answer
        key = self.tables.flows[kept.flow]
        lane = node.core.agenda.lanes.get(key.lane)
        alone = key.account != NOBODY or (lane is not None and len(lane.accounts) == 1)
        moments = [reason.until for reason in reasons if reason.until is not None]
        if moments and alone:
            self.referee.named[id_] = (
                kept.number,
                node.clock.true_us(max(moments) - node.clock.ahead()),
                version,
            )
        if not reasons and eta is None:
            self.world.wrong(13, f"nobody can say why {to_text(id_)} waits")

    # -- calm

    def _heal(self, chance: Random) -> None:
        world = self.world
        self.calm = True
        world.note("calm", "no more faults from here on")
        self.weather.calm()
        self.moods.calm()
        self.provider.outages.clear()
        for _ in range(200):
            if world.violations or self._healed():
                break
            if self.node is None or self.node.state == "dead":
                self.boot()
            world.run(world.time.us + S)
        else:
            world.wrong(6, "the process does not come up although nothing is wrong any more")
        node = self.node
        if world.violations or node is None:
            return
        node.crash_in = None
        for _ in range(3):
            node.order("put everything right", self._put_right, lambda _answer: self._changed(node))
            world.run(world.time.us + 5 * S)
        node.disk.slowest_us = 0
        # After the wall clock was set, windows are held as long as they may have to be, which is not the least.
        self.referee.pace.prompt &= not self.faults.stepped
        self.referee.pace.calm_since = world.time.us
        self.faults.last_outage()
        for _ in range(15):
            world.later(chance.randrange(60 * S), self.clients.ask)

    def _healed(self) -> bool:
        return self.node is not None and self.node.state == "up" and self._set_up

    async def _put_right(self) -> None:
        node = self.node
        assert node is not None
        self.referee.pace.unsettle()
        for account in self.plan.accounts:
            caller = msgspec.structs.replace(
                ADMIN, tenant=None if account.owner == "default" else account.owner
            )
            if f"{account.owner}/{account.name}" not in node.core.directory.accounts:
                await node.service.accounts.put(caller, account.name, account.body)
            gate = node.core.gates.account(f"{account.owner}/{account.name}")
            if gate is None or gate.paused or gate.stopped:
                await node.service.accounts.resume(caller, account.name)
        gate = node.core.gates.account("default/webhook")
        if gate is not None and gate.stopped:
            await node.service.accounts.resume(ADMIN, "webhook")
        for name in self.plan.queues:
            if node.core.directory.queue(name).paused:
                await node.service.queues.resume(ADMIN, name)

    def _drain(self, chance: Random) -> None:
        """Everything ends."""
        world = self.world
        quota = any("quota" in account.body for account in self.plan.accounts)
        self.faults.last_step(world.chance("last step"))
        until = world.time.us + (QUOTA_DRAIN_S if quota else DRAIN_S) * S
        while self.tables.open and world.time.us < until and not world.violations:
            world.run(min(until, world.time.us + 2 * S))
            self.referee.stalled()
        if self.tables.open and not world.violations:
            left = [kept for kept in self.tables.messages.values() if kept.state in (1, 2, 3, 4)]
            some = ", ".join(f"{to_text(k.row.id)} {State(k.state).label}" for k in left[:3])
            world.wrong(6, f"{len(left)} messages do not end although nothing is wrong any more: {some}")
        world.run(world.time.us + 3 * S)
        if not world.violations and not self.faults.stepped:
            self.referee.quotas()

    def _rest(self) -> None:
        """With nothing to do nothing is done."""
        world, node = self.world, self.node
        assert node is not None
        node.core.upkeep._alarms[node.core.upkeep._clean].cancel()  # cleaning has its own time
        before = node.loop.steps
        world.run(world.time.us + REST_S * S)
        if node.loop.steps - before > REST_S:
            world.wrong(12, f"{node.loop.steps - before} callbacks ran in {REST_S} s of rest")


@contextmanager
def _constants(world: World, knobs: plans.Knobs) -> Iterator[None]:
    """Constants of the product made small, and the reading of the machine's own clock."""
    small: list[tuple[Any, str, Any]] = [
        # A thread in real time, which would outlive the crashes of its process and call into simulated loops.
        (LoopWatch, "start", lambda _self, _loop: None),
        (moves, "boot_reading", lambda: (f"boot {world.boot}", EPOCH_MS + world.wall_us // 1000)),
        (dispatcher, "BATCH", knobs.batch), (agenda, "CHUNK", knobs.chunk), (agenda, "ASIDE", knobs.aside),
        (upkeep, "SLICE", knobs.slice), (upkeep, "CLEAN_EVERY_MS", 6 * 3_600_000), (recovery, "SLICE", knobs.slice), (messages, "CHUNK", knobs.slice),
    ]  # fmt: skip
    known = [(module, name, getattr(module, name)) for module, name, _ in small]
    for module, name, value in small:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in known:
            setattr(module, name, value)


@contextmanager
def _quiet() -> Iterator[None]:
    """The engine's own log is not shown; the history says more."""
    known = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**known)


def run(seed: int, *, history: bool = False) -> Result:
    """One seed."""
    return Scenario(seed, history=history).run()


__all__ = ["EPOCH_MS", "Result", "Scenario", "run"]
