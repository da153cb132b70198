"""One node of a simulated fleet: what `engine.nodes` does at each look, and what the lease's thread does beside it.

What it decides comes from the product (`pacing.shares`). What it does about that is written again here as steps on a
manual clock, with every question to the database taking time and reading another moment than the one before it.
"""

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from paceline.engine.nodes import LOOK_S, PATIENCE_S, REST_S
from paceline.pacing.shares import Overdue, Share, next_gift
from paceline.stores.postgres_lease import _AGAIN_S, _MARGIN, _PATIENCE_S
from paceline.stores.postgres_node import LEASE_S
from tests.simulation.fleet_store import Nodes, Owners

if TYPE_CHECKING:
    from tests.simulation.fleet import Fleet

T = TypeVar("T")


class Node:
    """One process; it changes its name when it was ended and joins again."""

    def __init__(self, fleet: "Fleet") -> None:
        self.fleet = fleet
        self.name = ""
        self.owned: set[int] = set()
        """What it believes to own in the store."""
        self.decides: set[int] = set()
        """Whose messages it would hand over now."""
        self.pending: set[int] = set()
        self.until = 0.0
        """Its lease, as it counts it itself."""
        self.dead = False
        self.frozen_until = self.deaf_until = self.cut_until = 0.0
        self.looks = self.rows = self.asked = 0
        self._life = 0
        self._giving: set[int] = set()
        self._gives = False
        self._version = 0
        self._rung, self._looking = False, True
        self._rest: dict[int, float] = {}
        self._overdue = Overdue(LOOK_S)
        self._trouble_at: float | None = None

    # -- time passes

    def able(self, now: float) -> bool:
        """Whether it could begin a call at this moment."""
        return not self.dead and self.frozen_until <= now < self.until

    def step(self, delay: float, act: Callable[[], None], *, thread: bool = False) -> None:
        """Do something a while later; not while it is stopped, nor (but in the lease's thread) while its loop is."""

        def due() -> None:
            held = self.frozen_until if thread else max(self.frozen_until, self.deaf_until)
            if self.dead:
                return
            if held > self.fleet.now:
                self.fleet.at(held - self.fleet.now, due)
            else:
                act()

        self.fleet.at(delay, due)

    def ask(
        self, do: Callable[[], T], then: Callable[[T], None], failed: Callable[[], None], *, thread: bool = False
    ) -> None:  # fmt: skip
        """Have the database do something. What reached it is done; nobody is told 'no' of what was done."""
        self.asked += 1
        fleet = self.fleet
        if self.cut_until > fleet.now:
            self.step(0.2, failed, thread=thread)
            return

        def arrive() -> None:
            answer = do()
            delay = max(0.0, self.cut_until - fleet.now) + fleet.latency()
            self.step(delay, partial(then, answer), thread=thread)

        fleet.at(fleet.latency(), arrive)

    # -- life

    def join(self) -> None:
        """Become a node, with a new name."""
        self._life += 1
        self._looking = True  # it does not look before it has joined
        self.name = self.fleet.new_name()
        begun, name = self.fleet.now, self.name

        def do() -> list[int]:
            until = self.fleet.now + LEASE_S
            self.fleet.watch_lease(name, until)
            return self.fleet.registry.join(name, until)

        def joined(taken: list[int]) -> None:
            self.fleet.ring_all()
            self._begin(begun, taken)

        self.ask(do, joined, lambda: self.step(1.0, self.join))

    def be_there(self, numbers: Collection[int]) -> None:
        """It joined a while ago, and has its share: what a fleet begins with."""
        self._life += 1
        self.name = self.fleet.new_name()
        until = self.fleet.now + LEASE_S
        self.fleet.watch_lease(self.name, until)
        self.fleet.registry.join(self.name, until)
        self.fleet.registry.place(self.name, numbers)
        self._begin(self.fleet.now, numbers)

    def _begin(self, joined_at: float, owned: Collection[int]) -> None:
        self.until = self._counted(joined_at)
        self.owned = set(owned)
        self._decide(owned)
        self.step(self.fleet.random.uniform(0, LEASE_S / 3), partial(self._renew, self._life), thread=True)
        self._look()

    def leave(self) -> None:
        """Stopped in good order: calls have ended, everything is given back."""
        self._lose(set(self.decides))
        self.dead = True
        self.fleet.registry.leave(self.name)
        self.fleet.ring_all()

    def die(self) -> None:
        """As by SIGKILL, or with its machine."""
        self._lose(set(self.decides))
        self.dead = True

    def _counted(self, asked: float) -> float:
        return asked + LEASE_S * (1 - _MARGIN)

    def _renew(self, life: int) -> None:
        if life != self._life:
            return
        begun, name = self.fleet.now, self.name

        def do() -> bool:
            until = self.fleet.now + LEASE_S
            lives = self.fleet.registry.renew(name, until)
            if lives:
                self.fleet.watch_lease(name, until)
            return lives

        def renewed(lives: bool) -> None:
            if life != self._life:
                return
            if not lives:
                self.until = 0.0
                self.ring()
                return
            if self.fleet.now - begun <= _PATIENCE_S:  # else given up, with its connection
                self.until = max(self.until, self._counted(begun))
                self.fleet.referee.renewed(self)
                self.step(LEASE_S / 3, partial(self._renew, life), thread=True)
            else:
                self.step(_AGAIN_S, partial(self._renew, life), thread=True)

        again = partial(self.step, _AGAIN_S, partial(self._renew, life), thread=True)
        self.ask(do, renewed, again, thread=True)

    def _come_back(self) -> None:
        """It was ended: forget everything, join anew."""
        self._lose(set(self.decides))
        self.until = 0.0
        self.owned.clear()
        self.pending.clear()
        self._giving.clear()
        self._gives = self._rung = False
        self._version += 1
        self.fleet.came_back += 1
        self.join()

    # -- looks

    def ring(self) -> None:
        """Word came that there is something to look at."""
        self._rung = True
        if not self._looking and not self.dead:
            self.step(0.0, self._look_if_rung)

    def _look_if_rung(self) -> None:
        if self._rung and not self._looking:
            self._look()

    def _look(self) -> None:
        self._looking, self._rung = True, False
        self.looks += 1
        version, life = self._version, self._life

        def seen_nodes(nodes: Nodes) -> None:
            self.ask(self.fleet.registry.see_owners, partial(self._seen, life, version, nodes), self._failed)

        self.ask(self.fleet.registry.see_nodes, seen_nodes, self._failed)

    def _failed(self) -> None:
        self._trouble_at = self.fleet.now
        self._rest_a_while()

    def _rest_a_while(self) -> None:
        """Until the next look."""
        self._looking = False
        life, looks = self._life, self.looks

        def next_one() -> None:
            if life == self._life and looks == self.looks and not self._looking:
                self._look()

        self.step(0.0 if self._rung else LOOK_S, next_one)

    def _seen(self, life: int, version: int, nodes: Nodes, owners: Owners) -> None:
        if life != self._life:
            return
        self.rows += len(nodes.living) + len(owners.of)
        if self.name not in nodes.living:
            self._come_back()
            return
        late = sorted(nodes.late - {self.name}) if self._may_end() else []
        follow = partial(self._follow, life, version, nodes, owners)
        if not late:
            follow(False)
            return
        end = self.fleet.registry.end
        self.ask(lambda: sum(map(end, late)) > 0, follow, self._failed)

    def _may_end(self) -> bool:
        """Not when it was itself cut off a moment ago: then the store was perhaps away for all."""
        return self._trouble_at is None or self.fleet.now - self._trouble_at > LEASE_S

    def _follow(self, life: int, version: int, nodes: Nodes, owners: Owners, ended: bool) -> None:
        if life != self._life:
            return
        if ended:
            self.fleet.ring_all()
            self._rung = True
        if version == self._version:
            self.owned = {n for n, owner in enumerate(owners.of) if owner == self.name} - self._giving
        self._lose(self.decides - self.owned - self.pending)
        overdue = self._overdue.seen(owners.of, self.fleet.now)
        share = self.fleet.share(self.name, nodes, owners, overdue)
        if share.take:
            self.ask(partial(self._take, share), partial(self._took, life, share), self._failed)
        else:
            self._gain(share if self.is_current(owners) else Share())

    def is_current(self, owners: Owners) -> bool:
        """Whether what it saw is what it owns now: else it would give away a second time what it gave meanwhile."""
        return {n for n, owner in enumerate(owners.of) if owner == self.name} == self.owned

    def _take(self, share: Share) -> list[int] | None:
        """In the database: the fence first."""
        if self.name in self.fleet.registry.ended:
            return None
        return self.fleet.registry.take(self.name, share.take)

    def _took(self, life: int, share: Share, taken: list[int] | None) -> None:
        if life != self._life:
            return
        if taken is None:
            self._come_back()
            return
        self.owned |= set(taken)
        self._version += 1
        self._gain(share)

    def _gain(self, share: Share) -> None:
        self._decide(self.owned - self.decides - self.pending)
        if share.offers and not share.take and not self._gives:
            self._offer(share)
        self._rest_a_while()

    def _decide(self, numbers: Collection[int]) -> None:
        self.decides |= set(numbers)
        self.fleet.referee.gained(self, numbers)

    def _lose(self, numbers: Collection[int]) -> None:
        self.decides -= set(numbers)
        self.fleet.referee.lost(self, numbers)

    # -- giving away

    def _offer(self, share: Share) -> None:
        now = self.fleet.now
        calls = Counter(number for number in self.decides if self.fleet.busy())
        resting = [number for number, until in self._rest.items() if until > now]
        numbers, to = next_gift(share.offers, self.decides, calls, resting)
        if not numbers:
            return
        self._gives = True
        self.pending |= numbers
        self._close(numbers)
        quiet = self.fleet.quiet_in()
        life = self._life
        if quiet > PATIENCE_S:
            self.step(PATIENCE_S, partial(self._gave, life, numbers, []))
        else:
            self.step(quiet, partial(self._hand, life, numbers, to))

    def _close(self, numbers: Collection[int]) -> None:
        """Nothing more is handed over there."""
        self._lose(numbers)

    def _hand(self, life: int, numbers: frozenset[int], to: str) -> None:
        if life != self._life:
            return
        had = self.owned & numbers
        self.owned -= had
        self._giving |= had
        self._version += 1
        name = self.name

        def do() -> list[int] | None:
            registry = self.fleet.registry
            return None if name in registry.ended else registry.give(name, sorted(had), to)

        def done(given: list[int] | None) -> None:
            if life != self._life:
                return
            self._giving -= had
            self.owned |= had.difference(given or ())
            self._version += 1
            self.fleet.ring_all()
            self._gave(life, numbers, given or [])

        self.ask(do, done, partial(done, []))

    def _gave(self, life: int, numbers: frozenset[int], given: list[int]) -> None:
        if life != self._life:
            return
        self._gives = False
        self.pending -= numbers
        kept = numbers.difference(given) & self.owned
        self._rest |= dict.fromkeys(kept, self.fleet.now + REST_S)
        self._lose(set(given))
        self._decide(kept)
        self.ring()

    def state(self) -> dict[str, Any]:
        """For a history."""
        return {"name": self.name, "decides": sorted(self.decides), "until": self.until}
