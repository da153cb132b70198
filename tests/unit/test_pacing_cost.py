"""Rules 11 and 12, counted in operations: a dispatch does not look at all accounts, and waiting looks at none."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log2

import pytest

from paceline.model.limits import parse_limit
from paceline.model.outcomes import RateLimited
from paceline.pacing import agenda
from paceline.pacing.gates import Gate
from paceline.pacing.lane import Account, Lane
from paceline.pacing.scopes import Rule, Scopes
from paceline.pacing.windows import NEVER
from tests.unit.simulated import START, Answer, Simulated

MANY = 100_000
SOME = 20_000


class Counted:
    """How often gates were asked and heaps or lines were moved."""

    def __init__(self) -> None:
        self.asked = 0


@contextmanager
def counting() -> Iterator[Counted]:
    counted = Counted()
    with pytest.MonkeyPatch.context() as patch:

        def wrap(owner: type, name: str) -> None:
            original: Callable[..., object] = getattr(owner, name)

            def asked(*args: object, **named: object) -> object:
                counted.asked += 1
                return original(*args, **named)

            patch.setattr(owner, name, asked)

        wrap(Gate, "opens")
        wrap(Lane, "touch")
        wrap(Lane, "_serve")
        wrap(agenda.Agenda, "_schedule")
        yield counted


def one_pool(*limits: str, size: int = MANY) -> Simulated:
    world = Simulated(lambda _release, _now: Answer(100))
    for number in range(size):
        world.account(f"a{number}", *limits)
    world.run_for(1)
    return world


def many_lanes(*limits: str) -> Simulated:
    world = Simulated(lambda _release, _now: Answer(100))
    for number in range(MANY):
        world.account(f"a{number}", *limits, pool=f"t/chat/p{number}")
    world.run_for(1)
    return world


@pytest.fixture(scope="module", params=[one_pool, many_lanes])
def crowd(request: pytest.FixtureRequest) -> Simulated:
    """A hundred thousand accounts, in one pool or each in its own."""
    made: Simulated = request.param("20/min")
    return made


def test_one_message_among_a_hundred_thousand_accounts_costs_a_handful_of_looks(crowd: Simulated) -> None:
    name = "a77777"
    lane = next(lane for lane in crowd.agenda.lanes.values() if f"t/{name}" in lane.accounts)
    key = crowd.key(name)
    key = type(key)(lane.key, *(getattr(key, part) for part in key.__struct_fields__[1:]))
    with counting() as counted:
        id_ = crowd.add(key)
        crowd.run()
    assert crowd.sends[-1].message == id_
    assert counted.asked <= 25


def test_a_limited_crowd_is_not_looked_at_before_its_moment() -> None:
    world = one_pool("1/h", size=SOME)
    for number in range(SOME):
        world.add(world.key(f"a{number}"))
        world.add(world.key(f"a{number}"))
    world.run_for(1000)
    assert len(world.sends) == SOME
    assert world.agenda.next_moment == START + 1 + 3_600_100
    steps = world.steps
    with counting() as counted:
        world.run(START + 3_600_100)
    assert (counted.asked, world.steps) == (0, steps + 1)
    world.run(START + 1 + 3_600_100)
    assert len(world.sends) == 2 * SOME


def test_when_one_of_a_limited_crowd_opens_only_it_is_looked_at() -> None:
    world = one_pool("1/h", size=SOME)
    first = world.agenda.lane("t/chat/pool").accounts["t/a500"]
    first.block(START + 60_000)
    for account in world.agenda.lane("t/chat/pool").accounts.values():
        if account is not first:
            account.block(START + 3_600_000)
    for number in range(SOME):
        world.add(world.key(f"a{number}"))
    world.run_for(1000)
    assert world.sends == []
    assert world.agenda.next_moment == START + 60_000
    with counting() as counted:
        world.run(START + 61_000)
    assert len(world.sends) == 1
    assert counted.asked <= 3 * log2(SOME)


def test_a_flooded_backlog_costs_nothing_while_it_waits() -> None:
    first = True

    def call(_release: object, _now: int) -> Answer:
        nonlocal first
        outcome, first = (Answer(100, RateLimited(3_600_000)) if first else Answer(100)), False
        return outcome

    world = Simulated(call)
    world.account("a")
    world.fill(world.key("a"), 20_000)
    world.run_for(1000)
    with counting() as counted:
        world.run_for(3_500_000)
    assert counted.asked == 0


def test_an_idle_crowd_has_no_next_moment(crowd: Simulated) -> None:
    assert crowd.agenda.next_moment == NEVER


def test_the_cost_of_a_send_does_not_grow_with_the_backlog() -> None:
    costs = []
    for backlog in (100, 10_000):
        world = Simulated(lambda _release, _now: Answer(100))
        world.account("a", "20/s")
        world.fill(world.key("a"), backlog)
        with counting() as counted:
            world.run_for(4000)
        costs.append(counted.asked / len(world.sends))
    assert costs[1] <= 1.05 * costs[0]


def test_the_cost_of_a_send_does_not_grow_with_the_accounts_that_could_do_it() -> None:
    costs = []
    for accounts in (200, 10_000):
        world = Simulated(lambda _release, _now: Answer(100))
        for number in range(accounts):
            world.account(f"a{number}", "20/min")
        world.run_for(1)
        world.fill(world.key(), 100)
        with counting() as counted:
            world.run()
        assert len(world.sends) == 100
        costs.append(counted.asked / 100)
    assert costs[1] <= costs[0] + 1


def test_taking_the_next_of_many_due_or_free_is_not_a_search() -> None:
    """A plain dict looks for its first key past all that were removed before it: the cost of n takes is n squared."""
    made = agenda.Agenda(Scopes())
    assert isinstance(made._due, OrderedDict)
    assert isinstance(made.lane("t/chat/p")._free, OrderedDict)


def test_a_wide_limit_wakes_as_many_as_it_has_room_for() -> None:
    world = Simulated(lambda _release, _now: Answer(0))
    for number in range(5000):
        world.account(f"a{number}")
        world.add(world.key(f"a{number}"))
    world.rule(Rule("all", parse_limit("2/s")))
    world.run_for(10)
    with counting() as counted:
        world.run_for(10_000)
    assert len(world.sends) == 22
    assert counted.asked <= 20 * 22


def test_room_is_kept_to() -> None:
    world = Simulated(lambda _release, _now: Answer(100), room=7)
    account: Account = world.account("a", concurrency=None)
    world.fill(world.key("a"), 100)
    released = world.agenda.release(world.now, 7)
    assert len(released) == 7
    assert world.agenda.next_moment == 0
    assert account.flying == 7
