"""Limits wider than an account: exact for each of them, and who waits for one does not hold up the others."""

from collections import defaultdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import parse_limit
from paceline.model.messages import Entry, FlowKey
from paceline.model.outcomes import RateLimited
from paceline.pacing import agenda, scopes
from paceline.pacing.gates import SharedGate
from paceline.pacing.lane import Account, Release
from paceline.pacing.scopes import EACH, Rule, Scopes
from paceline.pacing.windows import NEVER, Window
from tests.unit.simulated import ACCEPTED, START, Answer, Send, Simulated, delays, most_at_once, most_possible


def rule(name: str, limit: str, **conditions: str) -> Rule:
    return Rule(name, parse_limit(limit), **conditions)


def by_recipient(sends: list[Send]) -> dict[str, list[Send]]:
    found = defaultdict(list)
    for send in sends:
        found[send.entry.recipient].append(send)
    return dict(found)


def busy(seed: int, rules: list[Rule], *, messages: int = 150, floods: float = 0.1) -> Simulated:
    """Three accounts, two tenants, two queues, few recipients and groups, calls of up to two seconds."""
    random = Random(seed)

    def call(_release: Release, _now: int) -> Answer:
        outcome = RateLimited(random.randrange(3000)) if random.random() < floods else ACCEPTED
        return Answer(random.randrange(2000), outcome)

    world = Simulated(call, seed=seed)
    for name, limit in (("a", "5/s"), ("b", "3/s"), ("c", "9/s")):
        world.account(name, limit, concurrency=random.choice([1, 2, None]))
    for each in rules:
        world.rule(each)
    for _ in range(messages):
        key = world.key(
            random.choice(["", "a", "b"]), tenant=random.choice("tu"), queue=random.choice("qx"),
            priority=random.choice([5, 5, 8]),
        )  # fmt: skip
        recipient, group = f"r{random.randrange(6)}", random.choice([None, "g1", "g2"])
        moment = START + random.randrange(5000)
        world.at(moment, lambda k=key, r=recipient, g=group: world.add(k, recipient=r, group=g))  # type: ignore[misc]  # binds the loop's values
    return world


RULES = [
    rule("everything", "6/s"),
    rule("tenant t", "3/s", tenant="t"),
    rule("queue x", "2/s", queue="x"),
    rule("channel", "5/s", channel="chat"),
    rule("tenant and queue", "2/2s", tenant="u", queue="q"),
    rule("each recipient", "1/2s", recipient=EACH),
    rule("one recipient", "1/5s", recipient="r1"),
    rule("each group", "3/2s", group=EACH),
    rule("each recipient of a group", "1/3s", recipient=EACH, group="g1"),
    rule("each recipient of a queue", "1/4s", queue="x", recipient=EACH),
]


def covered(each: Rule, sends: list[Send]) -> dict[tuple[str, str], list[Send]]:
    """The sends that a rule counts together, told from its words."""
    found = defaultdict(list)
    for send in sends:
        entry, key = send.entry, send.key
        if each.tenant not in ("", key.tenant) or each.queue not in ("", key.queue):
            continue
        if each.recipient not in ("", EACH, entry.recipient) or each.group not in (
            "",
            EACH,
            entry.group or "",
        ):
            continue
        if each.group and not entry.group:
            continue
        found[entry.recipient if each.recipient else "", (entry.group or "") if each.group else ""].append(
            send
        )
    return dict(found)


@pytest.mark.parametrize("each", RULES, ids=lambda r: r.name)
def test_a_wide_limit_is_exact_and_nothing_is_lost(each: Rule) -> None:
    world = busy(11, [each])
    world.run()
    assert len(world.ended) == 150
    counted = covered(each, world.sends)
    assert max(most_possible(sends, each.limit.span_ms) for sends in counted.values()) == each.limit.maximum
    assert world.agenda.out == {}
    assert all(
        gate.flying == 0
        for gate in [*world.agenda.scopes.gates.values(), *world.agenda.scopes.single.values()]
    )


@given(st.sets(st.sampled_from(RULES), min_size=1), st.integers(0, 999))
def test_any_wide_limits_together_are_exact(rules: set[Rule], seed: int) -> None:
    world = busy(seed, sorted(rules, key=lambda r: r.name), messages=60)
    world.run()
    assert len(world.ended) == 60
    for each in rules:
        for sends in covered(each, world.sends).values():
            assert most_possible(sends, each.limit.span_ms) <= each.limit.maximum


def test_a_wide_limit_is_fully_used_over_many_accounts() -> None:
    random = Random(2)
    world = Simulated(lambda _release, _now: Answer(random.randrange(3000)))
    for number in range(20):
        world.account(f"a{number}")
        world.fill(world.key(f"a{number}"), 20)
    world.rule(rule("all", "10/5s"))
    world.run()
    # Nobody had nothing to send before the last ones: each send starts at the first moment the limit allows.
    assert set(delays(world.sends[:350], ["10/5s"])) == {0}


def test_the_concurrency_of_a_queue_holds_over_all_accounts() -> None:
    world = Simulated(lambda _release, _now: Answer(1000))
    gate = world.agenda.scopes.standing_gate("queue", "q")
    gate.concurrency = 3
    for number in range(10):
        world.account(f"a{number}")
        world.fill(world.key(f"a{number}"), 5)
    world.run()
    assert most_at_once(world.sends) == 3
    assert world.sends[-1].finished - START == 17_000


@pytest.mark.parametrize("own", ["", "3/5s"])
@pytest.mark.parametrize("scarce", ["concurrency", "rate"])
def test_accounts_take_turns_at_a_wide_gate(scarce: str, own: str) -> None:
    """An account whose call just ended goes to the end of the line: it does not keep the place it had."""
    world = Simulated(lambda _release, _now: Answer(1000))
    if scarce == "rate":
        world.rule(rule("all", "3/s"))
    else:
        world.agenda.scopes.standing_gate("queue", "q").concurrency = 3
    for number in range(10):
        world.account(f"a{number}", *([own] if own else []))
        world.fill(world.key(f"a{number}", tenant=f"t{number}"), 50)
    world.run_for(60_000)
    counts = [len(world.of(f"t/a{number}")) for number in range(10)]
    assert max(counts) - min(counts) <= 1


def test_two_wide_gates_with_lines_do_not_send_each_other_round_in_circles() -> None:
    world = Simulated(lambda _release, _now: Answer(700))
    world.rule(rule("all", "3/s"))
    world.rule(rule("tenant", "2/s", tenant="t"))
    world.agenda.scopes.standing_gate("queue", "q").concurrency = 3
    for number in range(10):
        world.account(f"a{number}")
        world.fill(world.key(f"a{number}", tenant="t" if number % 2 else "u"), 10)
    world.run()
    assert len(world.ended) == 100
    assert most_at_once(world.sends) == 3
    assert world.steps < 1000


# -- waiting aside


def test_a_recipient_that_must_wait_holds_up_nobody_else() -> None:
    world = Simulated(lambda _release, _now: Answer(10))
    world.account("a")
    world.rule(rule("each", "1/min", recipient=EACH))
    key = world.key("a")
    same = [world.add(key, recipient="same") for _ in range(50)]
    others = [world.add(key, recipient=f"r{n}") for n in range(50)]
    world.run_for(50_000)
    assert [send.message for send in world.sends] == [same[0], *others]
    world.run()
    assert [send.message for send in by_recipient(world.sends)["same"]] == same
    starts = [send.started for send in by_recipient(world.sends)["same"]]
    assert {later - earlier for earlier, later in pairwise(starts)} == {60_010}


def test_beyond_the_bound_the_whole_flow_waits_and_memory_does_not_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agenda, "ASIDE", 10)
    world = Simulated(lambda _release, _now: Answer(10))
    world.account("a")
    world.rule(rule("each", "1/s", recipient=EACH))
    key = world.key("a")
    same = [world.add(key, recipient="same") for _ in range(30)]
    other = world.add(key, recipient="other")
    world.run_for(500)
    assert world.agenda._aside == 10
    assert [send.message for send in world.sends] == same[:1]
    world.run()
    assert sorted(world.ended) == sorted([*same, other])
    assert [send.message for send in by_recipient(world.sends)["same"]] == same
    assert world.agenda._aside == 0


@given(st.integers(0, 99), st.integers(1, 12))
def test_nothing_is_lost_with_little_room_aside(seed: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agenda, "ASIDE", room)
        world = busy(
            seed, [rule("each", "1/s", recipient=EACH), rule("groups", "2/s", group=EACH)], messages=60
        )
        world.run()
    assert len(world.ended) == 60
    assert world.agenda.prefetch.flows == 0


def test_a_flow_whose_messages_all_stand_aside_learns_of_new_limits() -> None:
    world = Simulated(lambda _release, _now: Answer(0))
    world.account("a")
    world.rule(rule("each", "1/10s", recipient=EACH))
    for _ in range(2):
        for name in "xyz":
            world.add(world.key("a"), recipient=name)
    world.run_for(5000)
    assert len(world.sends) == 3
    world.rule(rule("all", "1/s"))
    world.run()
    assert [send.started - START for send in world.sends[3:]] == [10_000, 11_000, 12_000]


def test_a_flow_that_empties_while_one_stands_aside_is_counted_once() -> None:
    world = Simulated(lambda _release, _now: Answer(0))
    world.account("a")
    world.rule(rule("each", "1/10s", recipient=EACH))
    key = world.key("a")
    for _ in range(3):
        world.add(key, recipient="x")
    world.run_for(1)
    assert world.agenda.prefetch.flows == 1
    world.run()
    assert world.agenda.prefetch.flows == 0


# -- limits change


@given(
    st.integers(0, 999),
    st.lists(st.tuples(st.integers(100, 3000), st.integers(1, 8)), min_size=1, max_size=5),
)
def test_a_wide_limit_may_change_while_sends_fly(seed: int, changes: list[tuple[int, int]]) -> None:
    world = busy(seed, [rule("all", "4/2s")], messages=60)
    moment, steps = START, [(START, 4)]
    for wait, maximum in changes:
        moment += wait
        steps.append((moment, maximum))
        world.at(moment, lambda m=maximum: world.rule(rule("all", f"{m}/2s")))  # type: ignore[misc]  # binds the loop's value
    world.run()
    assert len(world.ended) == 60
    for index, send in enumerate(world.sends):
        allowed = [maximum for since, maximum in steps if since <= send.started][-1]
        assert sum(1 for s in world.sends[: index + 1] if send.started < s.finished + 2000) <= allowed


@given(st.integers(0, 999), st.integers(100, 4000), st.integers(1, 4))
def test_a_limit_of_each_recipient_may_change_while_sends_fly(seed: int, moment: int, maximum: int) -> None:
    world = busy(seed, [rule("each", "2/2s", recipient=EACH)], messages=60)
    world.at(START + moment, lambda: world.rule(rule("each", f"{maximum}/2s", recipient=EACH)))
    world.run()
    assert len(world.ended) == 60
    for sends in by_recipient(world.sends).values():
        for index, send in enumerate(sends):
            allowed = 2 if send.started < START + moment else maximum
            assert sum(1 for s in sends[: index + 1] if send.started < s.finished + 2000) <= allowed


def test_who_waited_for_a_limit_goes_when_it_is_dropped() -> None:
    world = Simulated(lambda _release, _now: Answer(10))
    world.account("a")
    world.rule(rule("all", "1/h"))
    world.rule(rule("each", "1/h", recipient=EACH))
    world.fill(world.key("a"), 2)
    for _ in range(3):
        world.add(world.key("a"), recipient="same")
    world.run_for(1000)
    world.agenda.drop_rule("all")
    world.run_for(1000)
    assert len(world.sends) == 3
    world.agenda.drop_rule("each")
    world.run_for(1000)
    assert len(world.ended) == 5
    assert world.agenda.scopes.single == {}


def test_sends_under_way_count_for_a_limit_that_is_new() -> None:
    world = Simulated(lambda _release, _now: Answer(5000))
    world.account("a", concurrency=None)
    world.fill(world.key("a"), 2)
    world.at(START + 1000, lambda: world.rule(rule("all", "3/10s")))
    world.at(START + 2000, lambda: world.fill(world.key("a"), 5))
    world.run()
    assert [send.started - START for send in world.sends] == [0, 0, 2000, 15_000, 15_000, 17_000, 30_000]


def test_regating_twice_counts_nothing_twice() -> None:
    world = Simulated(lambda _release, _now: Answer(5000))
    world.account("a")
    world.rule(rule("all", "2/10s"))
    world.rule(rule("each", "2/10s", recipient=EACH))
    world.fill(world.key("a"), 1)
    world.run_for(10)
    for _ in range(3):
        world.agenda.regate()
    every = [*world.agenda.scopes.gates.values(), *world.agenda.scopes.single.values()]
    assert [(gate.flying, gate.windows[0].flying) for gate in every] == [(1, 1), (1, 1)]
    world.run()
    assert [(gate.flying, gate.windows[0].flying) for gate in every] == [(0, 0), (0, 0)]


# -- gates made on demand


def test_idle_gates_are_forgotten_and_those_in_use_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "SWEEP", 20)
    world = Simulated(lambda _release, _now: Answer(10))
    world.account("a")
    world.rule(rule("each", "1/s", recipient=EACH))
    for _ in range(500):
        world.add(world.key("a"))
    world.run()
    assert len(world.sends) == 500
    assert len(world.agenda.scopes.single) <= 2 * 102  # a second's worth is in use; twice that before a look


def test_a_sweep_costs_little_for_each_new_gate_even_where_all_are_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scopes, "SWEEP", 100)
    looked = 0
    idle = SharedGate.idle

    def counted(gate: SharedGate, now: int) -> bool:
        nonlocal looked
        looked += 1
        return idle(gate, now)

    monkeypatch.setattr(SharedGate, "idle", counted)
    world = Simulated(lambda _release, _now: Answer(0))
    world.account("a", concurrency=None)
    world.rule(rule("each", "1/day", recipient=EACH))
    for _ in range(5000):
        world.add(world.key("a"))
    world.run_for(1000)
    assert len(world.sends) == 5000
    assert looked <= 2 * 5000


def test_a_sweep_never_forgets_a_gate_that_is_about_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "SWEEP", 4)
    rules = [rule("each", "1/10s", recipient=EACH), rule("groups", "2/10s", group=EACH)]
    world = Simulated(lambda _release, _now: Answer(100))
    world.account("a", concurrency=None)
    for each in rules:
        world.rule(each)
    random = Random(4)
    for moment in range(0, 90_000, 300):
        recipient, group = f"r{random.randrange(20)}", f"g{random.randrange(40)}"
        world.at(START + moment, lambda r=recipient, g=group: world.add(world.key("a"), recipient=r, group=g))  # type: ignore[misc]  # binds the loop's values
    world.run()
    assert len(world.ended) == 300
    for each in rules:
        for sends in covered(each, world.sends).values():
            assert most_possible(sends, 10_000) <= each.limit.maximum


def test_a_rule_covers_by_all_of_its_conditions() -> None:
    key = FlowKey("t/chat/pool", "shop", "c", "news", 5, "")
    assert rule("x", "1/s").covers(key)
    assert rule("x", "1/s", tenant="shop", queue="news", channel="chat").covers(key)
    assert not rule("x", "1/s", tenant="shop", queue="news", channel="mail").covers(key)
    assert not rule("x", "1/s", tenant="other").covers(key)
    assert not rule("x", "1/s", queue="other").covers(key)


def test_a_gate_for_people_has_a_readable_name() -> None:
    held = Scopes()
    both = rule("pairs", "1/s", recipient=EACH, group=EACH)
    held.set_rule(both)
    gate = held.keyed_gate(both, "ann", "room 5")
    assert gate is not None
    assert gate.label == "limit pairs ann room 5"
    assert held.keyed_gate(both, "ann", None) is None
    assert held.keyed_gate(rule("one", "1/s", recipient="bob"), "ann", None) is None


def test_a_gate_lets_out_no_more_flows_than_can_use_it() -> None:
    world = Simulated(lambda _release, _now: Answer(10))
    for number in range(20):
        world.account(f"a{number}")
        world.fill(world.key(f"a{number}"), 3)
    world.rule(rule("all", "1/s"))
    world.run_for(100)
    gate = world.agenda.scopes.gates["limit", "all"]
    assert gate.line.size == 20
    world.run_for(2000)
    assert gate.line.size == 20
    world.run()
    assert world.agenda.next_moment == NEVER


def pool_of(*names: str) -> tuple[agenda.Agenda, FlowKey]:
    made = agenda.Agenda(Scopes(lambda: START))
    key = FlowKey("default/chat/default", "t", "", "q", 5, "")
    for name in names:
        made.lane(key.lane).add_account(Account(f"t/{name}", 1))
    return made, key


def senders(made: agenda.Agenda, now: int) -> list[tuple[str, int]]:
    return [(release.account.id, release.entry.id) for release in made.release(now, 10)]


def test_what_one_account_has_to_wait_with_goes_through_an_idle_one_of_its_pool() -> None:
    made, key = pool_of("a", "b")
    made.block("t/a", "recipient", "r", START + 60_000)
    made.offer(key.number, key, Entry(1, 1, None, "r", None))
    assert senders(made, START) == [("t/b", 1)]
    made.settled(1, START + 5)
    assert senders(made, START + 5) == []
    assert made.next_moment >= START + 60_000  # nothing is left of it


def test_what_one_account_has_to_wait_with_goes_through_the_next_that_opens() -> None:
    made, key = pool_of("a", "b")
    made.lanes[key.lane].accounts["t/b"].windows = (Window(parse_limit("1/10s")),)
    made.offer(key.number, key, Entry(1, 1, None, "x", None))
    made.offer(key.number, key, Entry(2, 2, None, "x", None))
    assert {account for account, _ in senders(made, START)} == {"t/a", "t/b"}
    made.settled(1, START)
    made.settled(2, START)
    made.block("t/a", "recipient", "r", START + 60_000)
    for number in (3, 4):
        made.offer(key.number, key, Entry(number, number, None, "r", None))
    assert senders(made, START + 1) == []
    assert made.next_moment == START + 10_000
    assert senders(made, START + 10_000) == [("t/b", 3)]
    made.settled(3, START + 10_000)
    assert senders(made, START + 20_000) == [("t/b", 4)]
    made.settled(4, START + 20_000)
    assert senders(made, START + 60_000) == []  # gone is gone, also once the wait is over
    assert not made.lanes[key.lane].flows


def test_where_every_account_has_to_wait_the_first_that_may_sends() -> None:
    made, key = pool_of("a", "b")
    made.block("t/a", "recipient", "r", START + 20_000)
    made.block("t/b", "recipient", "r", START + 60_000)
    made.offer(key.number, key, Entry(1, 1, None, "r", None))
    assert senders(made, START) == []
    found = [(now, sent) for now in range(START, START + 70_000, 1000) if (sent := senders(made, now))]
    assert found == [(START + 20_000, [("t/a", 1)])]


def test_a_limit_for_all_accounts_holds_for_what_one_has_to_wait_with() -> None:
    made, key = pool_of("a", "b")
    made.set_rule(rule("each", "1/h", recipient=EACH))
    made.block("t/a", "recipient", "r", START + 1000)
    for number in (1, 2):
        made.offer(key.number, key, Entry(number, number, None, "r", None))
    assert senders(made, START) == [("t/b", 1)]
    made.settled(1, START)
    assert [sent for now in range(START, START + 3_600_000, 60_000) for sent in senders(made, now)] == []


def test_an_accounts_own_urgent_message_goes_before_what_another_has_to_wait_with() -> None:
    made, key = pool_of("a", "b")
    made.block("t/a", "recipient", "r", START + 60_000)
    lane = made.lane(key.lane)
    lane.accounts["t/b"].paused = True
    made.offer(key.number, key, Entry(1, 1, None, "r", None))
    assert senders(made, START) == []
    own = FlowKey(key.lane, "t", "", "q", 8, "t/b")
    made.offer(own.number, own, Entry(2, 2, None, "y", None))
    lane.accounts["t/b"].paused = False
    made.touched(lane, lane.accounts["t/b"])
    assert senders(made, START) == [("t/b", 2)]
