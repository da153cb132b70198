"""Rule 8, asked in calm: a backlog of equals on one account without limits, and the order in which it leaves."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.node import ADMIN

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

NAME = "fair"
Group = tuple[str, ...]


class Fairness:
    """A trial of turns. The account is paused while its backlog is made."""

    def __init__(self, scenario: "Scenario") -> None:
        """Not begun."""
        self._of = scenario
        self._chance = scenario.world.chance("fairness")
        self.ready = False

    def run(self) -> None:
        """Make the backlog, let it go, and look at the order."""
        world, node = self._of.world, self._of.node
        assert node is not None
        second = 1_000_000
        node.order("make a backlog of equals", self._make, lambda _answer: setattr(self, "ready", True))
        world.run(world.time.us + 5 * second, lambda: self.ready)
        if not self.ready or world.violations:
            return
        node.order("let it go", lambda: node.service.accounts.resume(ADMIN, NAME))
        world.run(world.time.us + 60 * second, lambda: not self._waiting())
        self._judge()

    async def _make(self) -> None:
        node, chance = self._of.node, self._chance
        assert node is not None
        body = {"channel": "once", "concurrency": chance.choice([1, 2, 3]), "pool": "fair", "shared": True}
        await node.service.accounts.put(ADMIN, NAME, body)
        await node.service.accounts.pause(ADMIN, NAME)
        bodies: list[dict[str, Any]] = []
        for tenant in self._of.plan.tenants:
            for campaign in ("x", "y")[: chance.randrange(1, 3)]:
                place = {"tenant": tenant, "campaign": campaign}
                bodies += [self._message(**place, priority=5) for _ in range(chance.randrange(2, 9))]
        bodies += [self._message(tenant=bodies[-1]["tenant"], campaign="late", priority=9)]
        answer = await node.service.messages.submit_batch(ADMIN, bodies)
        for item in answer["accepted"]:
            self._of.referee.acknowledge(item["id"])

    def _message(self, **more: Any) -> dict[str, Any]:
        return {"channel": "once", "account": NAME, "to": "somebody", "text": "t", "queue": "fair", **more}

    def _waiting(self) -> bool:
        return any(
            kept.row.queue == "fair" and kept.state in (1, 2, 3, 4)
            for kept in self._of.tables.messages.values()
        )

    def _judge(self) -> None:
        tables, world = self._of.tables, self._of.world
        rows = [tables.messages[id_].row for id_ in self._of.referee.order_of.get(f"default/{NAME}", [])]
        if self._of.referee.pace.rules:
            return  # what waits for a wide limit waits in its line, with what other lanes have there
        if rows and rows[0].priority != 9:
            world.wrong(8, "the most urgent message did not go first")
        equals = [row for row in rows if row.priority == 5]
        _check(self._of, "tenants", [(row.tenant,) for row in equals])
        for tenant in {row.tenant: None for row in equals}:
            own: list[Group] = [(row.tenant, row.campaign or "") for row in equals if row.tenant == tenant]
            _check(self._of, f"campaigns of {tenant}", own)


def _check(scenario: "Scenario", whose: str, order: list[Group]) -> None:
    """While all of them have work, their counts differ by at most one."""
    total = Counter(order)
    for counts in _counts(order):
        if any(counts[each] == total[each] for each in total):
            return
        if max(counts[each] for each in total) - min(counts[each] for each in total) > 1:
            scenario.world.wrong(8, f"{whose} do not take turns: {dict(counts)}")
            return


def _counts(order: list[Group]) -> Iterator[Counter[Group]]:
    counts: Counter[Group] = Counter()
    for each in order:
        counts[each] += 1
        yield counts
