"""The part of a flow in memory: bounded, in order, and nothing lost between it and the store."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.messages import NOBODY, Entry, FlowKey
from paceline.model.outcomes import Outcome, RateLimited
from paceline.model.states import State
from paceline.pacing.flows import Flow, Prefetch
from paceline.pacing.lane import Release
from tests.unit.simulated import ACCEPTED, POOL, START, Answer, Simulated

KEY = FlowKey(POOL, "t", "", "q", 5, NOBODY)


def entry(turn: int) -> Entry:
    return Entry(turn, turn, None, "", None)


def places(flow: Flow) -> list[int]:
    return [each.turn for each in flow.ready]


def empty(budget: int = 200_000) -> Flow:
    return Flow(1, KEY, (), keyed=False, prefetch=Prefetch(budget))


# -- one flow


def test_what_is_offered_beyond_the_share_stays_in_the_store() -> None:
    flow = empty()
    taken = [flow.offer(entry(n)) for n in range(300)]
    assert taken == [True] * 256 + [False] * 44
    assert flow.more
    wanted = []
    for _ in range(161):
        wanted.append(flow.wants)
        flow.ready.popleft()
    assert not any(wanted)  # not before the part in memory runs low
    assert flow.wants
    assert flow.begin_reading() == (255, 255)
    assert flow.reading


def test_an_earlier_turn_finds_its_place() -> None:
    flow = empty()
    for turn in (10, 20, 30):
        flow.offer(entry(turn))
    for turn in (25, 5, 25, 30):
        assert flow.offer(entry(turn))
    assert places(flow) == [5, 10, 20, 25, 30]


def test_what_arrives_while_we_read_is_read_again() -> None:
    flow = empty()
    flow.more = True
    flow.begin_reading()
    assert not flow.offer(entry(7))
    flow.filled([entry(5)], more=False)
    assert flow.more  # 7 may be missing from what was read
    flow.begin_reading()
    flow.filled([entry(7)], more=False)
    assert places(flow) == [5, 7]
    assert not flow.more


def test_what_arrives_among_the_read_is_not_skipped() -> None:
    flow = empty()
    flow.more = True
    flow.begin_reading()
    assert not flow.offer(entry(6))  # too late to be among what is being read
    flow.filled([entry(5), entry(8)], more=False)
    assert places(flow) == [5]
    assert flow.begin_reading() == (5, 5)
    flow.filled([entry(6), entry(8)], more=False)
    assert places(flow) == [5, 6, 8]
    assert not flow.more


def test_what_comes_back_behind_the_cursor_is_left_to_the_store() -> None:
    flow = empty()
    flow.more = True  # messages before 9 may wait in the store
    flow.put_back(entry(9))
    assert places(flow) == []
    flow.begin_reading()
    flow.filled([entry(8), entry(9)], more=False)
    assert places(flow) == [8, 9]


def test_what_comes_back_to_a_flow_without_others_is_in_memory_again() -> None:
    flow = empty()
    flow.put_back(entry(9))
    assert places(flow) == [9]
    assert not flow.offer(entry(9)) or places(flow) == [9]


def test_a_share_that_shrinks_gives_the_tail_back_to_the_store() -> None:
    flow = empty(100)
    flow.prefetch.count(1)
    for turn in range(100):
        flow.offer(entry(turn))
    flow.prefetch.count(9)
    flow.trim()
    assert places(flow) == list(range(10))
    assert flow.begin_reading() == (9, 9)


def test_a_flow_is_not_cut_behind_what_stands_aside() -> None:
    flow = empty(100)
    flow.prefetch.count(1)
    for turn in range(100):
        flow.offer(entry(turn))
    for _ in range(50):
        flow.set_aside(flow.ready.popleft())
    back = [entry(turn) for turn in range(50)]
    flow.prefetch.count(9)
    flow.trim()
    assert places(flow) == list(range(50, 60))
    for each in back:
        flow.back(each)
    assert places(flow) == list(range(60))
    assert flow.aside == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["offer", "take", "read", "trim", "back"]), st.integers(0, 50)),
        max_size=150,
    ),
    st.integers(1, 40),
)
def test_every_pending_message_is_in_memory_or_behind_the_cursor(
    steps: list[tuple[str, int]], budget: int
) -> None:
    """The invariant on which nothing-is-lost rests, over all orders of adding, taking, reading and trimming."""
    flow = empty(budget)
    flow.prefetch.count(1)
    pending: set[int] = set()
    taken: list[int] = []
    for step, number in steps:
        if step == "offer" and number not in pending:
            pending.add(number)
            flow.offer(entry(number))
        elif step == "take" and flow.ready:
            taken.append(flow.ready.popleft().turn)
            pending.discard(taken[-1])
        elif step == "back" and taken:
            pending.add(taken[-1])
            flow.offer(entry(taken.pop()))
        elif step == "read" and flow.more:
            behind = flow.begin_reading()[0]
            found = sorted(n for n in pending if n > behind)
            flow.filled([entry(n) for n in found[: flow.prefetch.size]], more=len(found) > flow.prefetch.size)
        elif step == "trim":
            flow.trim()
        memory = places(flow)
        assert memory == sorted(set(memory))
        outside = pending - set(memory)
        assert set(memory) <= pending
        assert all(n > flow.cursor[0] for n in outside)
        assert flow.more or not outside
        assert len(memory) <= 2 * flow.prefetch.size + flow.prefetch.size


# -- whole flows, against a store


@pytest.mark.parametrize("read_ms", [0, 7, 900])
@pytest.mark.parametrize("known", [True, False])
def test_a_long_flow_goes_in_order_across_many_reads(read_ms: int, known: bool) -> None:
    world = Simulated(lambda _release, _now: Answer(3), read_ms=read_ms)
    world.account("a")
    key = world.key("a")
    ids = [world.add(key, known=known) for _ in range(2000)]
    if not known:
        world.agenda.known(key.number, key)
    world.run()
    assert [send.message for send in world.sends] == ids
    assert world.waiting.reads >= 7
    assert world.most_held <= 2 * Prefetch.MOST


@given(st.integers(0, 2000), st.integers(0, 60), st.integers(1, 60))
def test_nothing_is_lost_or_sent_twice_while_messages_come_and_come_back(
    seed: int, read_ms: int, budget: int
) -> None:
    random = Random(seed)
    flooded: set[int] = set()

    def call(release: Release, _now: int) -> Answer:
        if random.random() < 0.2 and release.entry.id not in flooded:
            flooded.add(release.entry.id)
            return Answer(random.randrange(50), RateLimited(random.randrange(200)))
        return Answer(random.randrange(50))

    world = Simulated(call, seed=seed, budget=budget, read_ms=read_ms)
    for name in ("a", "b"):
        world.account(name, concurrency=random.choice([1, 3]))
    keys = [world.key(), world.key("a"), world.key("b", campaign="c"), world.key(queue="other")]
    ids: list[int] = []
    for _ in range(200):
        moment = START + random.randrange(3000)
        turn = moment - random.choice([0, 0, 0, 1000])
        key = random.choice(keys)
        world.at(moment, lambda k=key, t=turn: ids.append(world.add(k, turn=t)))  # type: ignore[misc]  # binds the loop's values
    world.run()
    accepted = [send.message for send in world.sends if send.outcome is ACCEPTED]
    assert sorted(accepted) == sorted(ids)
    assert len(world.waiting) == 0
    assert all(lane.flows == {} for lane in world.agenda.lanes.values())
    assert world.agenda.prefetch.flows == 0
    assert world.agenda.out == {}


@pytest.mark.parametrize(("flows", "each"), [(1, 5000), (10, 500), (200, 60), (1000, 10)])
def test_memory_is_bounded_by_the_budget_and_the_number_of_flows(flows: int, each: int) -> None:
    budget = 1000
    world = Simulated(lambda _release, _now: Answer(10), budget=budget)
    world.account("a", concurrency=50)
    ids = []
    for number in range(flows):
        ids += world.fill(world.key(campaign=f"c{number}"), each)
        assert world.held <= 2 * budget + Prefetch.LEAST * flows
    world.run()
    assert world.most_held <= 2 * budget + Prefetch.LEAST * flows
    assert len(world.ended) == len(ids)


def test_messages_with_a_past_turn_do_not_pile_up_in_memory() -> None:
    world = Simulated(lambda _release, _now: Answer(10))
    world.account("a").paused = True
    key = world.key("a")
    newest = world.add(key, turn=START)
    revived = [world.add(key, turn=START - 10_000 + n) for n in range(5000)]
    assert world.held <= 2 * Prefetch.MOST + 1
    account = world.agenda.lane(POOL).accounts["t/a"]
    account.paused = False
    world.agenda.touched(world.agenda.lane(POOL), account)
    world.run()
    assert [send.message for send in world.sends] == [*revived, newest]


def test_a_message_whose_time_has_passed_is_never_released() -> None:
    world = Simulated(lambda _release, _now: Answer(1000))
    world.account("a")
    key = world.key("a")
    ids = [world.add(key, expires_at=START + at) for at in (5000, 1000, 5000, 2500, 5001, 60_000, 3000)]
    world.run()
    assert [send.message for send in world.sends] == [ids[0], ids[2], ids[3], ids[4], ids[5]]
    assert all(
        send.entry.expires_at is not None and send.started < send.entry.expires_at for send in world.sends
    )
    assert {id_ for id_, state in world.ended.items() if state is State.EXPIRED} == {ids[1], ids[6]}


@given(st.lists(st.integers(0, 8000), min_size=1, max_size=40), st.integers(0, 50))
def test_expiry_holds_behind_every_kind_of_wait(lives: list[int], seed: int) -> None:
    random = Random(seed)
    outcomes: list[Outcome] = [ACCEPTED, ACCEPTED, RateLimited(500), RateLimited(900, "recipient")]
    world = Simulated(
        lambda _release, _now: Answer(random.randrange(300), random.choice(outcomes)), seed=seed
    )
    world.account("a", "3/s")
    for life in lives:
        world.add(world.key("a"), expires_at=START + life, recipient=random.choice("xyz"))
    world.run()
    assert len(world.ended) == len(lives)
    assert all(
        send.entry.expires_at is not None and send.started < send.entry.expires_at for send in world.sends
    )
