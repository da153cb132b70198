"""Rule 8: fair turns between tenants, and between a tenant's campaigns; strict between priorities."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import parse_limit
from paceline.model.messages import NOBODY, FlowKey
from paceline.pacing.flows import Flow, Prefetch
from paceline.pacing.scopes import Rule
from paceline.pacing.turns import Turns
from tests.unit.simulated import POOL, START, Answer, Send, Simulated


def flow(tenant: str, campaign: str = "", queue: str = "q", priority: int = 5) -> Flow:
    return Flow(
        0, FlowKey(POOL, tenant, campaign, queue, priority, NOBODY), (), keyed=False, prefetch=Prefetch()
    )


def by_tenant(sends: list[Send]) -> list[str]:
    return [send.key.tenant for send in sends]


# -- the rotation by itself


def test_tenants_take_turns_and_campaigns_within_a_tenant() -> None:
    turns: Turns[Flow] = Turns()
    for tenant, campaign in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3")]:
        turns.join(flow(tenant, campaign))
    order = []
    for _ in range(8):
        head = turns.head()
        order.append(head.key.tenant + head.key.campaign)
        turns.served()
    assert order == ["a1", "b1", "a2", "b1", "a3", "b1", "a1", "b1"]


def test_a_flow_that_leaves_unserved_gives_its_turn_to_its_own_tenant() -> None:
    turns: Turns[Flow] = Turns()
    for tenant, campaign in [("a", "1"), ("a", "2"), ("b", "1")]:
        turns.join(flow(tenant, campaign))
    assert turns.leave(served=False).key.campaign == "1"
    assert (turns.head().key.tenant, turns.head().key.campaign) == ("a", "2")


def test_a_flow_that_leaves_after_its_turn_takes_the_turn_with_it() -> None:
    turns: Turns[Flow] = Turns()
    for tenant, campaign in [("a", "1"), ("a", "2"), ("b", "1")]:
        turns.join(flow(tenant, campaign))
    turns.leave(served=True)
    assert turns.head().key.tenant == "b"


def test_an_empty_rotation_has_no_priority() -> None:
    turns: Turns[Flow] = Turns()
    assert (bool(turns), turns.priority, turns.size) == (False, -1, 0)
    turns.join(flow("a", priority=3))
    assert (bool(turns), turns.priority, turns.size) == (True, 3, 1)
    turns.leave(served=True)
    assert (bool(turns), turns.priority, turns.size) == (False, -1, 0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.integers(0, 2)), max_size=30),
    st.lists(st.sampled_from(["served", "leave", "drop"]), max_size=60),
)
def test_the_rotation_holds_exactly_who_joined_and_did_not_leave(
    joins: list[tuple[str, str, int]], acts: list[str]
) -> None:
    turns: Turns[Flow] = Turns()
    inside: list[Flow] = []
    pending = [flow(tenant, campaign, priority=priority) for tenant, campaign, priority in joins]
    for act in acts:
        if pending:
            inside.append(pending.pop())
            turns.join(inside[-1])
        if not turns:
            continue
        assert turns.head().key.priority == turns.priority == max(f.key.priority for f in inside)
        if act == "served":
            turns.served()
        else:
            inside.remove(turns.leave(served=act == "leave"))
        assert turns.size == len(inside)


# -- one account, or one wide limit, between many


@pytest.fixture(params=["account", "wide limit", "two accounts behind a wide limit"])
def world(request: pytest.FixtureRequest) -> Simulated:
    """What is scarce is one send a second, on the account itself or on all that the lane sends."""
    world = Simulated(lambda _release, _now: Answer(0))
    if request.param == "account":
        world.account("a", "1/s")
    else:
        world.account("a")
        world.rule(Rule("all", parse_limit("1/s")))
        if request.param != "wide limit":
            world.account("b")
    return world


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("123")), min_size=1, unique=True))
def test_counts_never_differ_by_more_than_one_round(parts: list[tuple[str, str]]) -> None:
    for wide in (False, True):
        world = Simulated(lambda _release, _now: Answer(0))
        world.account("a", *([] if wide else ["1/s"]))
        if wide:
            world.rule(Rule("all", parse_limit("1/s")))
        for tenant, campaign in parts:
            world.fill(world.key(tenant=tenant, campaign=campaign), 80)
        world.run_for(59_000)
        assert len(world.sends) == 60
        for until in range(1, 61):
            part = world.sends[:until]
            tenants = Counter({tenant: 0 for tenant, _ in parts})
            tenants.update(s.key.tenant for s in part)
            assert max(tenants.values()) - min(tenants.values()) <= 1
            for tenant in tenants:
                campaigns = Counter({c: 0 for t, c in parts if t == tenant})
                campaigns.update(s.key.campaign for s in part if s.key.tenant == tenant)
                assert max(campaigns.values()) - min(campaigns.values()) <= 1


def test_many_campaigns_do_not_give_a_tenant_more_turns(world: Simulated) -> None:
    for number in range(20):
        world.fill(world.key(tenant="many", campaign=f"c{number}"), 10)
    world.fill(world.key(tenant="one"), 100)
    world.run_for(79_000)
    assert Counter(by_tenant(world.sends)) == {"many": 40, "one": 40}


def test_a_newcomer_waits_one_round_and_not_behind_a_backlog(world: Simulated) -> None:
    for tenant in ("b", "c", "d"):
        world.fill(world.key(tenant=tenant), 1000)
    world.at(START + 10_500, lambda: world.add(world.key(tenant="new")))
    world.run_for(30_000)
    sent = next(send for send in world.sends if send.key.tenant == "new")
    assert sent.started - START <= 10_500 + 4000


def test_a_newcomer_with_one_message_waits_one_round_of_its_own_campaigns(world: Simulated) -> None:
    for campaign in ("1", "2", "3"):
        world.fill(world.key(campaign=campaign), 1000)
    world.at(START + 10_500, lambda: world.add(world.key(campaign="new")))
    world.run_for(30_000)
    sent = next(send for send in world.sends if send.key.campaign == "new")
    assert sent.started - START <= 10_500 + 4000


def test_a_higher_priority_goes_first_always(world: Simulated) -> None:
    low = world.fill(world.key(priority=3), 20)
    world.at(START + 5500, lambda: world.fill(world.key(priority=8), 10))
    world.run()
    order = [send.key.priority for send in world.sends]
    assert order == [3] * 6 + [8] * 10 + [3] * 14
    assert [send.message for send in world.sends if send.key.priority == 3] == low


def test_a_higher_priority_goes_first_whoever_else_stands_in_line(world: Simulated) -> None:
    for tenant in "abcdefgh":
        world.fill(world.key(tenant=tenant, priority=1), 5)
    world.at(START + 2500, lambda: world.add(world.key(tenant="z", priority=10)))
    world.run_for(10_000)
    assert by_tenant(world.sends)[3] == "z"


def test_within_a_flow_the_order_is_first_in_first_out(world: Simulated) -> None:
    ids = world.fill(world.key(), 50)
    world.run()
    assert [send.message for send in world.sends] == ids


def test_queues_of_one_campaign_take_turns_as_well(world: Simulated) -> None:
    for queue in ("x", "y"):
        world.fill(world.key(queue=queue), 10)
    world.run()
    assert [send.key.queue for send in world.sends] == ["x", "y"] * 10


def test_the_own_messages_priority_decides_against_the_pools() -> None:
    world = Simulated(lambda _release, _now: Answer(1000))
    world.account("a")
    for priority in (2, 6):
        world.fill(world.key("a", priority=priority), 2)
    for priority in (4, 8):
        world.fill(world.key(priority=priority), 2)
    world.run()
    assert [send.key.priority for send in world.sends] == [8, 8, 6, 6, 4, 4, 2, 2]
