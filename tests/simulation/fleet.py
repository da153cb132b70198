"""A fleet of up to a thousand nodes that share partitions: who owns what while they join, die, stop and see old views.

    python -m tests.simulation.fleet --nodes 1000 --seconds 120 --seed 3

Time is moved by hand, chance comes from the seed, and nothing runs but the plan of the product (`pacing.shares`) and the
steps around it (`fleet_node`) over a registry (`fleet_store`). See docs/scaling.md.
"""

import argparse
import heapq
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field

from paceline.engine.nodes import LOOK_S, PATIENCE_S, REST_S
from paceline.model.nodes import PARTITIONS
from paceline.pacing import shares
from paceline.pacing.shares import Plan, Share
from paceline.stores.postgres_node import LEASE_S
from tests.simulation.fleet_node import Node
from tests.simulation.fleet_store import Nodes, Owners, Registry

SAMPLE_S = 0.05
BOUND_S = LEASE_S + 4 * LOOK_S + 1.0
"""The longest a partition may be without somebody who could send: the lease, a look, and a look for each doubling of those
that may help (four of them), with what a slow database adds.
"""
CALM_S = LEASE_S + PATIENCE_S + REST_S + 5.0
"""So long after the last fault everything has to be at rest: what stayed because its calls took long is offered again."""


@dataclass
class Result:
    """What came of a run; `broken` names what must not be."""

    nodes: int
    seconds: float
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    gaps: list[float] = field(default_factory=list)
    moved: int = 0
    taken: int = 0
    came_back: int = 0
    looks: float = 0.0
    rows: float = 0.0
    asked: float = 0.0
    ends_asked: int = 0
    plan_us: float = 0.0
    sizes: tuple[int, int] = (0, 0)

    def lines(self) -> list[str]:
        gaps = sorted(self.gaps) or [0.0]
        return [
            f"nodes, simulated           {self.nodes}, {self.seconds:.0f} s; {dict(self.faults)}",
            f"without an owner           {len(gaps)} times, median {gaps[len(gaps) // 2]:.2f} s, longest {gaps[-1]:.2f} s",
            f"moved, taken               {self.moved}, {self.taken} partitions; {self.came_back} nodes came back",
            f"partitions of a node       {self.sizes[0]} to {self.sizes[1]} at the end",
            f"a node, a second           {self.looks:.2f} looks, {self.rows:.0f} rows, {self.asked:.2f} questions",
            f"all of them, a second      {self.rows * self.nodes:,.0f} rows",
            f"asked to end others        {self.ends_asked}",
            f"a plan                     {self.plan_us:.0f} us",
            *(f"BROKEN: {each}" for each in self.broken),
        ]


class Referee:
    """Knows who decides about what, and says when two do, or nobody."""

    def __init__(self, fleet: "Fleet", partitions: int) -> None:
        self._fleet = fleet
        self.deciders: list[set[Node]] = [set() for _ in range(partitions)]
        self._unserved: dict[int, float] = {}
        self.gaps: list[float] = []
        self.broken: list[str] = []

    def gained(self, node: Node, numbers: Collection[int]) -> None:
        for number in numbers:
            self.deciders[number].add(node)
            self._alone(number)
            if node.able(self._fleet.now):
                self._served(number)

    def renewed(self, node: Node) -> None:
        for number in node.decides:
            self._alone(number)

    def lost(self, node: Node, numbers: Collection[int]) -> None:
        for number in numbers:
            self.deciders[number].discard(node)

    def _alone(self, number: int) -> None:
        now = self._fleet.now
        may = [each.name for each in self.deciders[number] if not each.dead and each.until > now]
        if len(may) > 1:
            self.broken.append(f"{now:.3f} s: partition {number} has two owners: {sorted(may)}")

    def _served(self, number: int) -> None:
        since = self._unserved.pop(number, -1.0)
        if since >= 0:
            self.gaps.append(self._fleet.now - since)

    def sample(self) -> None:
        """Look at every partition: somebody able owns it, or has not for too long.

        Calls that end before a partition is given away are no gap. Nor is a node whose event loop is blocked: it has a lease,
        and whatever it owns waits for it.
        """
        now = self._fleet.now
        excused = {
            number for node in self._fleet.alive() if node.able(now)
            for number in (self._fleet.registry.owned(node.name) if node.deaf_until > now else node.pending)
        }  # fmt: skip
        for number, deciders in enumerate(self.deciders):
            if number in excused or any(node.able(now) for node in deciders):
                self._served(number)
                continue
            since = self._unserved.setdefault(number, now)
            if since >= 0 and now - since > BOUND_S:
                self.broken.append(
                    f"{now:.3f} s: partition {number} without an owner for {now - since:.1f} s"
                )
                self._unserved[number] = -1.0


class Fleet:
    """The world: the time, the nodes, and what befalls them."""

    def __init__(self, seed: int, count: int, partitions: int = PARTITIONS) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.registry = Registry(partitions)
        self.referee = Referee(self, partitions)
        self.nodes: list[Node] = []
        self.faults: Counter[str] = Counter()
        self.came_back = 0
        self.slow_until = 0.0
        self.calls_run = True
        self.plans: list[float] = []
        self._names = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._helpers: dict[tuple[int, int], frozenset[str]] = {}
        self._planned: tuple[tuple[int, int], dict[str, Share]] = ((-1, -1), {})
        for place in range(count):
            self.nodes.append(Node(self))
            self.nodes[-1].be_there(range(place, partitions, count) if place < partitions else ())

    # -- the world that nodes see

    def at(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._order), act))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = until

    def latency(self) -> float:
        """One way to the database or back."""
        slow = 40.0 if self.now < self.slow_until else 1.0
        return self.random.expovariate(1 / 0.002) * slow + 0.0002

    def busy(self) -> bool:
        """Whether a partition has calls under way."""
        return self.calls_run and self.random.random() < 0.5

    def quiet_in(self) -> float:
        """When the calls of a partition will have ended."""
        if not self.calls_run:
            return 0.02
        return self.random.choice((0.02, 0.3, 2.0, PATIENCE_S + 1))

    def new_name(self) -> str:
        return f"{self.random.getrandbits(32):08x}{next(self._names)}"

    def watch_lease(self, name: str, until: float) -> None:
        self.at(until - self.now, lambda: self.registry.expire(name, self.now))

    def ring_all(self) -> None:
        """Word to everybody; some do not hear it."""
        for node in self.nodes:
            if self.random.random() < 0.95:
                self.at(self.latency(), node.ring)

    def share(self, name: str, nodes: Nodes, owners: Owners, overdue: dict[int, int]) -> Share:
        """The product's plan; what all would work out alike is worked out once."""
        view = (nodes.version, owners.version)
        if self._planned[0] != view:
            begun = time.perf_counter()
            plan = shares.plan_of(owners.of, nodes.senders)
            self.plans.append(time.perf_counter() - begun)
            self._planned = (view, {who: shares.part_of(who, plan) for who in _named(plan)})
            self._helpers.clear()
        share = self._planned[1].get(name, Share())
        more = [
            n
            for n, looks in overdue.items()
            if n not in share.take and name in self._help(n, looks, nodes, owners)
        ]
        return Share((*share.take, *more), share.offers) if more else share

    def _help(self, number: int, looks: int, nodes: Nodes, owners: Owners) -> frozenset[str]:
        key = (number, min(looks, 20))
        if key not in self._helpers:
            self._helpers[key] = shares.helpers_of(*key, owners.of, nodes.senders)
        return self._helpers[key]

    # -- what befalls it

    def add(self, delay: float = 0.0) -> Node:
        node = Node(self)
        self.nodes.append(node)
        self.at(delay, node.join)
        return node

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if not node.dead]

    def fault(self) -> None:
        """One thing that happens to one node, or to a third of them; one node is always left alone."""
        kinds = ("kill", "stop", "freeze", "deaf", "cut", "join", "slow", "many")
        kind = self.random.choices(kinds, (4, 3, 3, 1, 2, 3, 1, 0.3))[0]
        victims = self.alive()[1:]
        self.faults[kind] += 1
        if kind == "join":
            self.add()
        elif kind == "slow":
            self.slow_until = self.now + self.random.uniform(0.5, 3)
        elif kind == "many":
            for node in self.random.sample(victims, len(victims) // 3):
                self._befall("kill", node)
        elif victims:
            self._befall(kind, self.random.choice(victims))

    def _befall(self, kind: str, node: Node) -> None:
        until = self.now + self.random.choice((0.5, 2.0, LEASE_S - 0.3, LEASE_S + 3, 20.0))
        if kind in {"kill", "stop"}:
            node.die() if kind == "kill" else node.leave()
            self.nodes.remove(node)
            self.add(self.random.uniform(0.5, 10))  # somebody starts it again
        elif kind == "freeze":
            node.frozen_until = until
        elif kind == "deaf":
            node.deaf_until = until + 20.0
        else:
            node.cut_until = until

    def sampling(self) -> None:
        self.referee.sample()
        self.at(SAMPLE_S, self.sampling)


def _named(plan: Plan) -> set[str]:
    return {node for _, node in plan.takes} | {giver for _, giver, _ in plan.moves}


def run(seed: int, count: int, seconds: float, rate: float) -> Result:
    """A fleet in a storm of `rate` faults a second, then in calm; and what is to be said of it."""
    fleet = Fleet(seed, count)
    fleet.run(1.0)
    fleet.at(0.0, fleet.sampling)
    end = 1.0 + seconds
    while fleet.now < end:
        fleet.run(min(end, fleet.now + fleet.random.expovariate(rate)))
        fleet.fault()
    for node in fleet.nodes:
        node.frozen_until = node.deaf_until = node.cut_until = min(fleet.now, node.frozen_until)
    fleet.calls_run, fleet.slow_until = False, 0.0
    fleet.run(fleet.now + CALM_S)
    return _result(fleet, count, fleet.now)


def _result(fleet: Fleet, count: int, seconds: float) -> Result:
    registry, referee, alive = fleet.registry, fleet.referee, fleet.alive()
    sizes = Counter({node.name: 0 for node in alive} | Counter(filter(None, registry.owners)))
    broken = list(referee.broken)
    if None in registry.owners or set(sizes) - {node.name for node in alive}:
        broken.append("not every partition has a living owner at the end")
    if max(sizes.values()) - min(sizes.values()) > 1:
        broken.append(f"uneven at the end: {min(sizes.values())} to {max(sizes.values())}")
    for node in alive:
        if node.decides != {n for n, owner in enumerate(registry.owners) if owner == node.name}:
            broken.append(f"{node.name} decides about something else than it owns")
    moved = registry.moved
    before = [(node, node.looks, node.rows, node.asked) for node in alive]
    quiet = 5.0
    fleet.run(fleet.now + quiet)
    if registry.moved != moved:
        broken.append("it does not come to rest")
    many = len(before)
    return Result(
        nodes=count, seconds=seconds, broken=broken, faults=fleet.faults, gaps=referee.gaps,
        longest=max(referee.gaps, default=0.0), moved=moved, taken=registry.taken, came_back=fleet.came_back,
        looks=sum(node.looks - n for node, n, _, _ in before) / many / quiet,
        rows=sum(node.rows - n for node, _, n, _ in before) / many / quiet,
        asked=sum(node.asked - n for node, _, _, n in before) / many / quiet,
        ends_asked=registry.ends_asked, plan_us=sum(fleet.plans) / max(1, len(fleet.plans)) * 1e6,
        sizes=(min(sizes.values()), max(sizes.values())),
    )  # fmt: skip


def moves_of_a_join(count: int, seed: int = 1) -> tuple[int, int]:
    """How many partitions change their owner when one more node joins a fleet at rest, and how few it takes."""
    fleet = Fleet(seed, count)
    fleet.calls_run = False
    fleet.run(2.0)
    moved = fleet.registry.moved
    fleet.add()
    fleet.run(fleet.now + 15.0)
    return fleet.registry.moved - moved, PARTITIONS // (count + 1)


def moves_of_a_death(count: int, seed: int = 1) -> tuple[int, int]:
    """How many change it when one that owns something dies, and how many it owned."""
    fleet = Fleet(seed, count)
    fleet.calls_run = False
    fleet.run(2.0)
    before = list(fleet.registry.owners)
    victim = next(node for node in fleet.alive() if node.name == before[0])
    victim.die()
    fleet.run(fleet.now + 15.0)
    return sum(a != b for a, b in zip(before, fleet.registry.owners, strict=True)), before.count(victim.name)


def main() -> int:
    """Runs and prints; 1 when something was broken."""
    from tests.simulation.fleet_planted import PLANTED, planted

    parser = argparse.ArgumentParser(prog="python -m tests.simulation.fleet", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of faults, simulated")
    parser.add_argument("--rate", type=float, default=1.0, help="faults a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", choices=sorted(PLANTED), help="put this bug in")
    given = parser.parse_args()
    begun = time.monotonic()
    with planted(given.planted) if given.planted else nullcontext():
        result = run(given.seed, given.nodes, given.seconds, given.rate)
    print("\n".join(result.lines()))
    print(f"took {time.monotonic() - begun:.1f} s")
    return int(bool(result.broken))


if __name__ == "__main__":
    sys.exit(main())
