"""What goes wrong, and when. To add a fault: a method here, and its name in `_KINDS` with a weight."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import msgspec

from paceline.model.ids import to_text
from paceline.model.states import State
from tests.simulation.world import EPOCH_MS

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

S = 1_000_000
_KINDS = {
    "crash": 6, "stop": 2, "wall": 3, "slow_disk": 2, "full_disk": 2, "mood": 6, "freeze": 1, "zombie": 2, "reboot": 1,
}  # fmt: skip


class Faults:
    """The storm."""

    def __init__(self, scenario: "Scenario") -> None:
        """Nothing is wrong yet."""
        self._of = scenario
        self._world = scenario.world
        self._chance: Random = scenario.world.chance("faults")
        self.stepped = False  # the wall clock was set: calendar days are not what they were

    def schedule(self, chance: Random, begin: int, length: int, count: int) -> None:
        """Draw `count` faults within a stretch of time."""
        for _ in range(count):
            kind = chance.choices(list(_KINDS), list(_KINDS.values()))[0]
            act: Callable[[], None] = getattr(self, kind)
            self._world.at(begin + chance.randrange(length), act)

    def _back(self, least_us: int, most_us: int) -> None:
        """Somebody starts it again."""
        self._world.later(self._chance.randrange(least_us, most_us), self._of.boot)

    # -- the process and its machine

    def crash(self) -> None:
        """Cut between two callbacks, wherever that is."""
        node = self._of.node
        if node is not None and not self._of.calm:
            node.crash(self._chance.choice([1, 5, 30, 100, 400]) + self._chance.randrange(30))
            self._world.later(S, self._until_dead)

    def _until_dead(self) -> None:
        node = self._of.node
        if node is not None and node.state != "dead" and node.crash_in is not None:
            node.end("crashes at rest")
        self._back(S // 4, 4 * S)

    def stop(self) -> None:
        """A restart in good order, with more or less patience."""
        node = self._of.node
        if node is not None and not self._of.calm:
            node.stop(self._chance.choice([0.05, 1.0, 10.0]))
            self._back(15 * S, 20 * S)

    def reboot(self) -> None:
        """The whole machine: nothing tells afterwards by how much its clock was set before.

        A clock set forward cannot be told from time that passed, which the product says; so it is put right before the next start.
        """
        node = self._of.node
        if node is not None and not self._of.calm:
            node.end("the machine stops")
            self._world.boot += 1
            if self._chance.random() < 0.5:
                self._set_clock(-self._chance.choice([2 * S, 600 * S]))
            self._back(2 * S, 5 * S)

    def mend_clock(self) -> None:
        """A process starts: after a reboot a clock that was set forward is put right, see `reboot`."""
        ahead = self._world.wall_us - self._of.referee.anchor_us
        if ahead > 0 and self._of.referee.boot != self._world.boot:
            self._set_clock(-ahead)

    def wall(self) -> None:
        """Somebody sets the wall clock, forward or back."""
        if not self._of.calm:
            step = self._chance.choice([200_000, 450_000, 3 * S, 40 * S, 3600 * S])
            self._set_clock(step if self._chance.random() < 0.5 else -step)

    def last_step(self, chance: Random) -> None:
        """In calm, where everything has to be prompt: what is scheduled becomes due at once, in some seeds."""
        if chance.random() < 0.25:
            self._set_clock(chance.choice([3 * S, 40 * S, 3600 * S]))

    def _set_clock(self, us: int) -> None:
        self.stepped = True
        self._of.referee.version += 1
        self._world.set_wall(us)
        self._world.note(
            "wall", f"the wall clock is set by {us / 1e6:+.3f} s to {self._world.wall_ms - EPOCH_MS} ms"
        )

    def freeze(self) -> None:
        """The process does not run for a while (a stop signal, a suspended machine); the world goes on."""
        node = self._of.node
        if node is not None and not self._of.calm:
            us = self._chance.choice([80_000, 900_000, 6 * S])
            self._world.note("process", f"is frozen for {us / 1e6} s")
            node.loop.frozen_until = self._world.time.us + us

    # -- the disk

    def slow_disk(self) -> None:
        """Commits take long for a while."""
        if not self._of.calm:
            slow = self._chance.choice([30_000, 300_000, 1_500_000])
            self._of.weather.commit_us = (slow // 10, slow)
            self._of.weather.read_us = (slow // 100, slow // 10)
            self._world.note("disk", f"commits take up to {slow / 1000} ms")
            self._world.later(self._chance.randrange(S, 10 * S), self._of.weather.calm)

    def full_disk(self) -> None:
        """Nothing, or nothing new, can be written for a while; or only now and then."""
        if not self._of.calm:
            state = self._chance.choice(["tight", "full", "flaky"])
            self._of.weather.state = state
            for _ in range(4):  # what people set meanwhile may be half done
                self._world.later(self._chance.randrange(S), self._of.clients.meddle)
            self._world.note("disk", f"is {state}")
            self._world.later(self._chance.randrange(S // 2, 10 * S), self._of.weather.calm)

    # -- the provider

    def mood(self) -> None:
        """The provider answers otherwise for a while."""
        if self._of.calm:
            return
        chance, moods = self._chance, self._of.moods
        kinds = ["refuse", "later", "flood", "flood", "lose", "hang", "stop", "move", "break"]
        moods.weights = {"accept": 1.0} | {
            kind: chance.choice([0.1, 0.4, 2.0]) for kind in chance.sample(kinds, chance.randrange(1, 4))
        }
        moods.latency = chance.choice([(2000, 20_000), (5000, 120_000), (50_000, 2 * S)])
        self._world.note("provider", f"answers by {moods.weights}")
        self._world.later(chance.randrange(2 * S, 20 * S), moods.calm)

    def outages(self, begin: int, length: int) -> None:
        """In a part of the seeds: providers are down for a while, now and then until the calm."""
        chance = self._world.chance("outages")
        if chance.random() < 0.5:
            return
        for _ in range(chance.randrange(1, 5)):
            some = [f"{each.owner}/{each.name}" for each in self._of.plan.accounts if chance.random() < 0.6]
            kind = chance.choice(["refused", "refused", "errors", "silent", "flapping"])
            at = begin + chance.randrange(length)
            lasts = chance.choice([S // 5, 3 * S, 12 * S, 40 * S])
            self._world.at(at, partial(self._go_down, some, kind))
            self._world.at(at + lasts, partial(self._come_back, some))

    def _go_down(self, accounts: list[str], kind: str) -> None:
        if not self._of.calm:
            self._world.note("provider", f"is down for {accounts}: {kind}")
            self._of.provider.outages |= dict.fromkeys(accounts, kind)

    def last_outage(self) -> None:
        """In calm, in some seeds: whoever has a backlog has to ask its provider when the pause is over, not later."""
        chance = self._world.chance("last outage")
        if chance.random() < 0.3:
            everybody = [f"{each.owner}/{each.name}" for each in self._of.plan.accounts]
            self._of.provider.outages |= dict.fromkeys(everybody, chance.choice(["refused", "errors"]))
            self._world.note("provider", "is down for all of them, once more")
            self._world.later(chance.choice([3 * S, 12 * S, 40 * S]), partial(self._come_back, everybody))

    def _come_back(self, accounts: list[str]) -> None:
        self._world.note("provider", f"is back for {accounts}")
        for account in accounts:
            self._of.provider.outages.pop(account, None)

    # -- an owner of before

    def zombie(self) -> None:
        """A settlement of an earlier hand-over arrives late: it must change nothing."""
        referee, tables = self._of.referee, self._of.tables
        old = [
            made for made in referee.settled
            if (kept := tables.messages.get(made.id)) is not None
            and (kept.number != made.number or kept.state != State.PROCESSING)
        ]  # fmt: skip
        if not old:
            return
        in_hand = [made for made in old if tables.messages[made.id].state == State.PROCESSING]
        made = msgspec.structs.replace(self._chance.choice(in_hand or old))
        kept = tables.messages[made.id]
        before = (kept.state, kept.number, kept.attempts, kept.due_at)
        stale = tables.settle([made], [])
        if stale != [made.id] or before != (kept.state, kept.number, kept.attempts, kept.due_at):
            self._world.wrong(
                2, f"{to_text(made.id)}: a settlement of hand-over {made.number} was taken for {kept.number}"
            )
