"""What one account does: interval, flood waits, concurrency, pauses, changes while sends fly, late binding."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import parse_limit
from paceline.model.messages import account_id
from paceline.model.outcomes import AccountStopped, Outcome, Permanent, RateLimited
from paceline.model.states import State
from paceline.pacing.gates import Gate
from paceline.pacing.lane import Account, Release
from paceline.pacing.scopes import Rule
from paceline.pacing.windows import NEVER
from tests.unit.simulated import ACCEPTED, OWNER, POOL, START, Answer, Simulated, most_at_once, most_possible


def steady(took_ms: int = 100, seed: int = 0) -> Simulated:
    return Simulated(lambda _release, _now: Answer(took_ms), seed=seed)


def answers(*outcomes: Outcome, took_ms: int = 100) -> Simulated:
    """The first calls are answered with these, all others accepted."""
    left = list(outcomes)
    return Simulated(lambda _release, _now: Answer(took_ms, left.pop(0) if left else ACCEPTED))


# -- interval and jitter


@given(st.integers(1, 10_000), st.floats(0, 1), st.integers(0, 3000), st.integers(0, 99))
def test_a_pause_is_never_shorter_than_the_interval_nor_longer_than_its_jitter(
    interval: int, jitter: float, took: int, seed: int
) -> None:
    world = steady(took, seed=seed)
    account = world.account("a", interval_ms=interval, jitter=jitter, concurrency=3)
    world.fill(world.key("a"), 20)
    world.run()
    sends = world.of(account)
    pauses = [later.started - earlier.finished for earlier, later in pairwise(sends)]
    assert min(pauses) >= interval
    assert max(pauses) <= interval * (1 + jitter)


def test_jitter_is_spread_over_its_whole_range() -> None:
    world = steady(0, seed=3)
    account = world.account("a", interval_ms=1000, jitter=0.5)
    world.fill(world.key("a"), 400)
    world.run()
    sends = world.of(account)
    pauses = [later.started - earlier.finished for earlier, later in pairwise(sends)]
    assert min(pauses) < 1020
    assert max(pauses) > 1480
    assert 1240 < sum(pauses) / len(pauses) < 1260


# -- flood waits (rule 7)


@given(st.lists(st.integers(0, 100_000), min_size=1))
def test_a_flood_wait_only_extends(waits: list[int]) -> None:
    gate = Gate("account a")
    for count, wait in enumerate(waits, 1):
        gate.block(START + wait)
        assert gate.blocked_until == START + max(waits[:count])


def test_a_shorter_flood_does_not_cut_a_longer_one_short() -> None:
    # Two calls under way at once: the first is told to wait an hour, the second, later, a minute.
    plan = [Answer(100, RateLimited(3_600_000)), Answer(200, RateLimited(60_000))]
    world = Simulated(lambda _release, _now: plan.pop(0) if plan else Answer(100))
    account = world.account("a", concurrency=2)
    world.fill(world.key("a"), 5)
    world.run()
    assert [send.started - START for send in world.of(account)][:3] == [0, 0, 3_600_100]
    assert set(world.ended.values()) == {State.COMPLETED}


def test_a_flood_costs_no_attempt_and_ends_exactly_when_the_provider_said() -> None:
    world = answers(*[RateLimited(30_000)] * 10)
    account = world.account("a")
    message = world.add(world.key("a"), max_attempts=1)
    world.run()
    starts = [send.started for send in world.of(account)]
    assert [later - earlier for earlier, later in pairwise(starts)] == [30_100] * 10
    assert world.ended == {message: State.COMPLETED}
    assert world.messages[message].attempts == 1


def test_a_flood_keeps_its_message_first_in_line() -> None:
    world = answers(RateLimited(5000))
    account = world.account("a")
    ids = world.fill(world.key("a"), 4)
    world.run()
    assert [send.message for send in world.of(account)] == [ids[0], *ids]


def test_while_an_account_waits_nothing_is_looked_at() -> None:
    world = answers(RateLimited(3_600_000))
    world.account("a")
    world.fill(world.key("a"), 1000)
    world.run_for(1000)
    assert world.agenda.next_moment == START + 3_600_100
    steps = world.steps
    world.run_for(3_500_000)
    assert world.steps == steps + 1


def test_others_go_on_while_one_account_waits() -> None:
    world = Simulated(
        lambda release, _now: Answer(
            100, RateLimited(60_000) if release.account.id.endswith("/a") else ACCEPTED
        )
    )
    world.account("a")
    other = world.account("b")
    world.fill(world.key("a"), 3)
    world.fill(world.key("b"), 50)
    world.run_for(5000)
    assert len(world.of(other)) == 50


@pytest.mark.parametrize(("scope", "label"), [("recipient", "recipient"), ("group", "group")])
def test_a_wait_of_one_chat_leaves_the_others_alone(scope: str, label: str) -> None:
    slow = RateLimited(60_000, scope)  # type: ignore[arg-type]  # the parameter is one of the literals
    told = False

    def call(release: Release, _now: int) -> Answer:
        nonlocal told
        if release.entry.recipient == "slow" and not told:
            told = True
            return Answer(100, slow)
        return Answer(100)

    world = Simulated(call)
    world.account("a")
    key = world.key("a")
    held = [world.add(key, recipient="slow", group="room") for _ in range(2)]
    others = [world.add(key, recipient=f"r{n}", group=f"g{n}") for n in range(20)]
    world.run()
    order = [send.message for send in world.sends]
    assert order == [held[0], *others, *held]
    assert (
        next(s.started for s in world.sends if s.message == held[0] and s.started > START) == START + 60_100
    )


def test_a_wait_of_a_chat_holds_for_flows_that_were_there_before_any_wait() -> None:
    # The rule's gates of another queue exist already, so this is not the first single gate of all.
    told = False

    def call(release: Release, _now: int) -> Answer:
        nonlocal told
        if release.entry.recipient == "slow" and not told:
            told = True
            return Answer(100, RateLimited(60_000, "recipient"))
        return Answer(100)

    world = Simulated(call)
    world.account("a")
    world.account("b")
    world.rule(Rule("each", parse_limit("100/s"), queue="limited", recipient="*"))
    plain = world.key("a", queue="plain")
    ids = [world.add(plain, recipient=name) for name in ("first", "slow", "slow", "last")]
    world.add(world.key("b", queue="limited"), recipient="x")  # makes a gate, which "plain" does not pass
    world.run()
    assert [send.message for send in world.sends if send.key == plain] == [*ids[:2], ids[3], *ids[1:3]]
    assert [send.started - START for send in world.sends if send.key == plain][3:] == [60_200, 60_300]


def test_a_stopped_account_sends_nothing_and_its_message_is_not_at_fault() -> None:
    world = answers(AccountStopped("401", "bad token"))
    account = world.account("a")
    ids = world.fill(world.key("a"), 3)
    world.run()
    assert [send.message for send in world.sends] == ids[:1]
    assert world.agenda.next_moment == NEVER
    assert world.messages[ids[0]].attempts == 0
    account.stopped = ""
    world.agenda.touched(world.agenda.lane(POOL), account)
    world.run()
    assert [send.message for send in world.sends] == [ids[0], *ids]


# -- concurrency


@pytest.mark.parametrize("concurrency", [1, 2, 7, None])
def test_no_more_calls_run_than_allowed_and_all_of_those_do(concurrency: int | None) -> None:
    world = steady(1000)
    world.account("a", concurrency=concurrency)
    world.fill(world.key("a"), 30)
    world.run()
    assert most_at_once(world.sends) == (concurrency or 30)


def test_a_hung_call_costs_its_own_place_and_nothing_else() -> None:
    first = True

    def call(_release: Release, _now: int) -> Answer:
        nonlocal first
        took, first = (3_600_000 if first else 100), False
        return Answer(took)

    world = Simulated(call)
    world.account("a", concurrency=2)
    world.fill(world.key("a"), 100)
    world.run_for(10_000)
    assert len(world.ended) == 99


# -- pause and resume


def test_a_paused_account_sends_nothing_until_it_is_resumed() -> None:
    world = steady()
    account = world.account("a")
    ids = world.fill(world.key("a"), 10)

    def pause(paused: bool) -> None:
        account.paused = paused
        world.agenda.touched(world.agenda.lane(POOL), account)

    world.at(START + 250, lambda: pause(True))
    world.at(START + 60_000, lambda: pause(False))
    world.run()
    starts = [send.started - START for send in world.sends]
    assert starts[:4] == [0, 100, 200, 60_000]
    assert list(world.ended) == ids


@pytest.mark.parametrize(("scope", "name"), [("queue", "q"), ("tenant", "t"), ("campaign", "t/spring")])
def test_a_pause_of_a_queue_a_tenant_or_a_campaign_holds_its_messages_alone(scope: str, name: str) -> None:
    world = steady()
    world.account("a")
    held = world.fill(world.key("a", campaign="spring"), 3)
    gate = world.agenda.scopes.standing_gate(scope, name)
    gate.paused = True
    world.agenda.regate()
    other = world.fill(world.key("a", tenant="u", queue="other"), 3)
    world.run()
    assert list(world.ended) == other
    assert world.agenda.next_moment == NEVER
    gate.paused = False
    world.agenda.stir(gate)
    world.run()
    assert list(world.ended) == other + held


def test_a_gate_that_is_held_while_its_history_is_read_lets_nothing_out() -> None:
    world = steady()
    account = world.account("a")
    account.held = True
    world.fill(world.key("a"), 2)
    world.run_for(5000)
    assert world.sends == []
    account.held = False
    world.agenda.touched(world.agenda.lane(POOL), account)
    world.run()
    assert [send.started - START for send in world.sends] == [5000, 5100]


# -- changes while sends fly


@given(
    st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(0, 999),
)
def test_limits_may_change_while_sends_fly(changes: list[tuple[int, int]], seed: int) -> None:
    """With each change, no window that lies wholly under one maximum holds more than it, flights included."""
    random = Random(seed)
    world = Simulated(lambda _release, _now: Answer(random.randrange(5000)), seed=seed)
    account = world.account("a", "5/10s", concurrency=None)
    world.fill(world.key("a"), 60)
    moment, steps = START, [(START, 5)]
    for wait, maximum in changes:
        moment += wait
        steps.append((moment, maximum))
        world.at(moment, lambda m=maximum: world.limit(account, f"{m}/10s"))  # type: ignore[misc]  # binds the loop's value
    world.run()
    assert len(world.ended) == 60
    for send in world.sends:
        maximum = [m for since, m in steps if since <= send.started][-1]
        occupied = [s for s in world.sends if s.started <= send.started < s.finished + 10_000]
        earlier = [s for s in occupied if world.sends.index(s) <= world.sends.index(send)]
        assert len(earlier) <= maximum


def test_an_account_that_is_removed_holds_its_messages_until_it_is_back() -> None:
    world = steady(1000)
    account = world.account("a", "3/10s")
    ids = world.fill(world.key("a"), 6)
    lane = world.agenda.lane(POOL)
    world.at(START + 1500, lambda: lane.remove_account(account.id))
    world.run_for(100_000)
    assert [send.message for send in world.sends] == ids[:2]
    lane.add_account(account)
    world.run()
    assert [send.message for send in world.sends] == ids
    assert world.sends[2].started == START + 100_000


def test_an_account_that_comes_back_as_new_takes_over_the_calls_of_its_name() -> None:
    world = steady(5000)
    old = world.account("a", "1/10s")
    world.fill(world.key("a"), 3)
    lane = world.agenda.lane(POOL)

    def replace() -> None:
        lane.remove_account(old.id)
        world.account("a", "1/10s")

    world.at(START + 1000, replace)
    world.run()
    assert [send.started - START for send in world.sends] == [0, 15_000, 30_000]
    assert old.flying == 1  # it is not asked any more


def test_an_account_that_was_replaced_serves_nothing_more() -> None:
    world = steady(1000)
    old = world.account("a")
    lane = world.agenda.lane(POOL)
    lane.remove_account(old.id)
    new = Account(account_id(OWNER, "a"))
    new.paused = True
    lane.add_account(new)
    world.fill(world.key(), 3)
    world.agenda.touched(lane, old)
    world.run()
    assert world.sends == []


# -- late binding


def test_unpinned_messages_go_through_whichever_account_opens_first() -> None:
    world = steady()
    accounts = [world.account(f"a{n}", limit) for n, limit in enumerate(["1/10s", "1/4s", "1/7s"])]
    world.fill(world.key(), 12)
    world.run()
    assert {a.id: len(world.of(a)) for a in accounts} == {"t/a0": 3, "t/a1": 6, "t/a2": 3}
    for account in accounts:
        assert most_possible(world.of(account), account.windows[0].span) == 1


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(100, 9000)), min_size=1, max_size=5),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=40),
    st.integers(0, 99),
)
def test_no_account_idles_while_an_unpinned_message_waits(
    limits: list[tuple[int, int]], arrivals: list[int], seed: int
) -> None:
    random = Random(seed)
    world = Simulated(lambda _release, _now: Answer(random.randrange(2000)), seed=seed)
    accounts = [world.account(f"a{n}", f"{m}/{w}ms") for n, (m, w) in enumerate(limits)]
    key = world.key()
    for moment in arrivals:
        world.at(START + moment, lambda: world.add(key))
    lane = world.agenda.lane(POOL)
    turn = world._turn

    def checked() -> None:
        turn()
        if lane.turns:
            assert all(account.opens(world.now) > world.now for account in accounts)

    world._turn = checked  # type: ignore[method-assign]  # to look at every step
    world.run()
    assert len(world.ended) == len(arrivals)


def test_an_accounts_own_and_the_pools_messages_take_turns() -> None:
    world = steady()
    account = world.account("a")
    own, pool = world.key("a"), world.key()
    world.fill(own, 5)
    world.fill(pool, 5)
    world.run()
    assert [send.key == own for send in world.of(account)] == [True, False] * 5


def test_an_account_that_joins_finds_work_at_once() -> None:
    world = steady()
    world.fill(world.key(), 2)
    world.fill(world.key("a"), 2)
    world.run()
    assert world.agenda.next_moment == NEVER
    world.account("a")
    assert world.agenda.next_moment == 0
    world.run()
    assert len(world.ended) == 4


def test_a_refused_message_frees_its_place_for_the_next() -> None:
    world = answers(Permanent("550", "no such user"))
    world.account("a")
    ids = world.fill(world.key("a"), 2)
    world.run()
    assert world.ended == {ids[0]: State.FAILED, ids[1]: State.COMPLETED}


# -- what the engine may do in any order


def test_a_message_that_is_heard_of_twice_goes_once() -> None:
    world = steady(1000)
    account = world.account("a", concurrency=2)
    key = world.key("a")
    id_ = world.add(key)
    world.run_for(10)
    world.agenda.offer(key.number, key, world.messages[id_].entry)  # its sender's task came late
    world.agenda.known(key.number, key)
    world.run()
    assert [send.message for send in world.sends] == [id_]
    assert account.flying == 0
    assert world.agenda.out == {}


def test_a_hand_over_that_does_not_take_place_frees_everything() -> None:
    world = steady()
    account = world.account("a", "1/h")
    gate = world.agenda.scopes.standing_gate("queue", "q")
    gate.concurrency = 1
    ids = world.fill(world.key("a"), 2)
    world.waiting.take(world.key("a").number, world.messages[ids[0]].entry)  # cancelled in the meantime
    world.run_for(1000)
    assert [send.message for send in world.sends] == ids[1:]
    assert (account.flying, gate.flying, world.agenda.out) == (0, 0, {})
    assert world.agenda.withdrawn(ids[0]) is None
    assert world.agenda.settled(ids[0], world.now) is None
