"""When will it go, and why not yet: what was foretold against what then happens (rule 13, P9)."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import Limit, parse_limit
from paceline.model.messages import FlowKey
from paceline.pacing import schedule
from paceline.pacing.forecast import (
    Place,
    Reason,
    ahead_of,
    gate_reasons,
    moment_of,
    moment_of_gate,
    rivals,
    senders,
)
from paceline.pacing.gates import Gate, SharedGate
from paceline.pacing.lane import Account
from paceline.pacing.quotas import Quota
from paceline.pacing.schedule import starts
from paceline.pacing.scopes import Rule
from paceline.pacing.windows import Spacing, Window
from tests.unit.simulated import POOL, START, Answer, Simulated

TOOK = 250


def world_of(*accounts: tuple[list[str], int | None]) -> tuple[Simulated, list[Account]]:
    world = Simulated(lambda _release, _now: Answer(TOOK))
    made = [world.account(f"a{n}", *limits, concurrency=c) for n, (limits, c) in enumerate(accounts)]
    return world, made


def told_and_true(
    world: Simulated, accounts: list[Account], count: int, every: int = 1
) -> list[tuple[int, int]]:
    """For every so-manieth of `count` new messages the wait that is foretold now, and the one that then comes about."""
    now = world.now
    told = [moment_of(accounts, ahead, now, TOOK) for ahead in range(0, count, every)]
    world.fill(world.key(), count)
    before = len(world.sends)
    world.run()
    true = world.sends[before::every]
    return [(t - now, s.started - now) for t, s in zip(told, true, strict=True) if t is not None]


@pytest.mark.parametrize(
    "accounts",
    [
        [(["20/min", "200/h"], 1)],
        [(["20/min", "200/h"], None)],
        [([], 1)],
        [([], 3)],
        [(["7/10s"], 2)],
        [(["1/2s"], 1), (["5/min"], 1), (["100/h"], 4)],
    ],
    ids=str,
)
def test_what_is_foretold_comes_about(accounts: list[tuple[list[str], int | None]]) -> None:
    world, made = world_of(*accounts)
    pairs = told_and_true(world, made, 500, every=5)
    assert len(pairs) == 100
    assert all(abs(told - true) <= 0.02 * true + 1 for told, true in pairs)


def test_what_is_foretold_in_the_middle_of_things_comes_about() -> None:
    world, made = world_of((["20/min", "200/h"], 2), (["1/3s"], 1))
    world.fill(world.key(), 150)
    world.run_for(200_000)
    while not any(account.flying for account in made):
        world.run_for(70)
    waiting = 150 - len(world.sends)
    now = world.now
    told = [moment_of(made, ahead, now, TOOK) for ahead in range(waiting)]
    before = len(world.sends)
    world.run()
    for moment, send in zip(told, world.sends[before:], strict=True):
        assert moment is not None
        assert abs(moment - send.started) <= 0.02 * (send.started - now) + TOOK


def test_an_interval_with_jitter_is_foretold_by_its_mean() -> None:
    world = Simulated(lambda _release, _now: Answer(TOOK), seed=8)
    account = world.account("a", interval_ms=3000, jitter=0.5)
    drawn = world.random.getstate()
    moment_of([account], 100, world.now, TOOK)
    assert world.random.getstate() == drawn  # looking ahead changes nothing
    pairs = told_and_true(world, [account], 3000, every=1499)
    assert abs(pairs[-1][0] - pairs[-1][1]) <= 0.02 * pairs[-1][1]


def test_a_flood_wait_and_a_quota_are_foretold() -> None:
    world = Simulated(lambda _release, _now: Answer(TOOK))
    account = world.account(
        "a", "20/min", quotas=[Quota(50, "day", "Asia/Shanghai"), Quota(170, "month", "UTC")]
    )
    account.block(START + 600_000)
    pairs = told_and_true(world, [account], 300)
    assert pairs[0] == (600_000, 600_000)
    assert pairs[-1][1] > 16 * 86_400_000  # into the next month
    assert all(abs(told - true) <= 0.02 * true for told, true in pairs)


def test_far_ahead_the_rate_is_taken_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "STEPS", 1000)
    world, made = world_of((["20/min", "200/h"], 1), (["300/h"], 1))
    pairs = told_and_true(world, made, 20_000, every=2000)
    for told, true in pairs[1:]:
        assert abs(told - true) <= 0.02 * true


def test_what_a_wider_limit_alone_allows_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "STEPS", 700)
    world, _ = world_of(([], 1), ([], 1))
    world.rule(Rule("all", parse_limit("10/min")))
    world.fill(world.key(), 25)
    world.run_for(70_000)
    gate = world.agenda.scopes.gates["limit", "all"]
    world.fill(world.key(), 995)
    told = [moment_of_gate(gate, ahead, world.now, TOOK) for ahead in range(1000)]
    now, before = world.now, len(world.sends)
    world.run()
    for moment, send in zip(told, world.sends[before:], strict=True):
        assert (
            abs(moment - send.started) <= 0.02 * (send.started - now) + 6 * TOOK
        )  # the two take a moment for ten


def test_a_gate_that_counts_nothing_lets_through_when_its_wait_ends() -> None:
    gate = Gate("queue q")
    assert moment_of_gate(gate, 100, START, TOOK) == START
    gate.block(START + 5000)
    assert moment_of_gate(gate, 100, START, TOOK) == START + 5000


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5000)), min_size=1, max_size=3), st.integers(0, 60)
)
def test_foretold_moments_never_go_back(limits: list[tuple[int, int]], ahead: int) -> None:
    _, made = world_of(*(([str(Limit(*each))], 2) for each in limits))
    moments = [moment for moment, _ in zip(starts(made, START, TOOK), range(ahead + 1), strict=False)]
    assert moments == sorted(moments)
    assert moments[-1] == moment_of(made, ahead, START, TOOK)


def test_nobody_to_send_it_means_no_moment() -> None:
    _, made = world_of((["1/s"], 1), (["1/s"], 1))
    made[0].paused = True
    made[1].stopped = "401: bad token"
    assert moment_of(made, 0, START, TOOK) is None
    assert moment_of([], 0, START, TOOK) is None
    assert list(starts([], START, TOOK)) == []


# -- how many go first


@pytest.mark.parametrize("seed", range(8))
def test_how_many_go_first_is_what_then_happens(seed: int) -> None:
    random = Random(seed)
    world, _ = world_of((["1/s"], 1))
    keys = [
        world.key(tenant=tenant, campaign=campaign, priority=priority)
        for tenant, campaign, priority in {
            (random.choice("tuv"), random.choice("123"), random.choice([3, 5, 5, 8])) for _ in range(8)
        }
    ]
    ids = {key: world.fill(key, random.randrange(1, 60)) for key in keys}
    lane = world.agenda.lane(POOL)
    flows = dict(lane.flows)
    waiting = {key.number: len(found) for key, found in ids.items()}
    told = {
        (key, index): ahead_of(flows[key.number], Place(index, waiting), flows)
        for key in keys
        for index in range(len(ids[key]))
    }
    world.run()
    order = {send.message: place for place, send in enumerate(world.sends)}
    for (key, index), ahead in told.items():
        true = order[ids[key][index]]
        # By one round of turns at most, or a fiftieth of the wait.
        assert abs(ahead - true) <= max(len(keys), 0.02 * true), (key, index)


def test_higher_priorities_go_first_and_lower_ones_do_not_count() -> None:
    world, _ = world_of((["1/s"], 1))
    keys: dict[int, FlowKey] = {priority: world.key(priority=priority) for priority in (1, 5, 9)}
    for key in keys.values():
        world.fill(key, 10)
    flows = world.agenda.lane(POOL).flows
    place = Place(4, {key.number: 10 for key in keys.values()})
    assert [ahead_of(flows[keys[p].number], place, flows) for p in (1, 5, 9)] == [24, 14, 4]


def test_who_competes_and_who_may_send() -> None:
    world, made = world_of(([], 1), ([], 1))
    made[0].paused = made[1].paused = True
    own, other, pool, lost = world.key("a0"), world.key("a1"), world.key(), world.key("gone")
    for key in (own, other, pool, lost):
        world.fill(key, 1)
    lane = world.agenda.lane(POOL)
    flow = lane.flows
    assert set(rivals(lane, flow[own.number])) == {own.number, pool.number}
    assert set(rivals(lane, flow[pool.number])) == {pool.number}
    assert senders(lane, flow[own.number]) == [made[0]]
    assert senders(lane, flow[pool.number]) == made
    assert senders(lane, flow[lost.number]) == []


# -- why not yet


def test_an_open_gate_gives_no_reason() -> None:
    assert gate_reasons(Gate("account a0", [Window(parse_limit("1/s"))]), START) == []


def test_every_way_to_be_closed_is_named() -> None:
    account = Account("t/a0", concurrency=1)
    account.windows = (
        Window(parse_limit("2/min")),
        Window(parse_limit("5/h")),
        Spacing(3000, 0, lambda: 0.0),
    )
    account.quotas = (Quota(1, "day", "UTC"),)
    account.take(START)
    account.take(START)
    account.finish(START + 500, spent=True)
    account.paused = account.held = True
    account.stopped = "401: bad token"
    account.block(START + 9000)
    midnight = account.quotas[0].resets_at
    assert gate_reasons(account, START + 600) == [
        Reason("paused", "account a0 is paused"),
        Reason("held", "the history of account a0 is being read"),
        Reason("stopped", "account a0 was refused by the provider: 401: bad token"),
        Reason("flood-wait", "the provider asked account a0 to wait", START + 9000),
        Reason("limit", "limit 2/min of account a0", START + 60_500),
        Reason("limit", "limit 1/3s of account a0"),  # full by a call under way: only its end can tell
        Reason("quota", "account a0 has used its 1 of this day", midnight),
        Reason("concurrency", "account a0 has 1 of 1 calls under way"),
    ]


@given(st.integers(0, 2**9 - 1))
def test_a_gate_has_a_reason_exactly_when_it_is_closed(ways: int) -> None:
    account = Account("t/a0", concurrency=2)
    account.windows = (Window(parse_limit("3/min")),)
    account.quotas = (Quota(4, "day", "UTC"),)
    account.paused, account.held = bool(ways & 1), bool(ways & 2)
    account.stopped = "no" if ways & 4 else ""
    account.block(START + 1000 * (ways >> 3 & 1))
    for _ in range(ways >> 4 & 3):
        account.take(START)
    for _ in range(ways >> 6 & 7):
        account.take(START)
        account.finish(START, spent=True)
    reasons = gate_reasons(account, START + 1)
    assert bool(reasons) is (account.opens(START + 1) > START + 1)


@pytest.mark.parametrize("seed", range(5))
def test_each_reason_of_a_waiting_message_ends_no_later_than_it_goes(seed: int) -> None:
    world = Simulated(lambda _release, _now: Answer(TOOK), seed=seed)
    account = world.account("a", "3/10s", "7/min", interval_ms=700, jitter=0.3)
    world.rule(Rule("all", parse_limit("2/5s")))
    world.fill(world.key("a"), 20)
    while world.agenda.out or world.waiting:
        world.run_for(1001)
        gate = world.agenda.scopes.gates["limit", "all"]
        reasons = [*gate_reasons(account, world.now), *gate_reasons(gate, world.now)]
        if len(world.waiting) and not world.agenda.out:
            assert reasons
            until = max(reason.until or 0 for reason in reasons)
            before = len(world.sends)
            world.run(until - 1)
            assert len(world.sends) == before
            world.run(until)
            assert len(world.sends) == before + 1


def test_a_wider_gate_is_named_by_its_scope() -> None:
    gate = SharedGate(("queue", "sms"), concurrency=2)
    gate.paused = True
    assert gate_reasons(gate, START) == [Reason("paused", "queue sms is paused")]
