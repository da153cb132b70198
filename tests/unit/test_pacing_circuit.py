"""The circuit of an account: when it opens, what it lets through, how it closes. On a clock that is moved by hand."""

from itertools import count
from random import Random

import pytest

from paceline.model.accounts import CircuitSpec
from paceline.model.messages import Entry, FlowKey, account_id, lane_key
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from paceline.pacing import circuit, forecast
from paceline.pacing.agenda import Agenda
from paceline.pacing.circuit import FULL, JITTER, Circuit
from paceline.pacing.flows import Prefetch
from paceline.pacing.lane import Account, Release
from paceline.pacing.scopes import Scopes
from paceline.pacing.windows import NEVER

RULE = CircuitSpec(after=5, pause_ms=1000, most_ms=60_000)
DOWN = Temporary("connect", "refused", up=False)
NOTHING = Unknown("who knows")
UP: list[Outcome] = [
    Accepted(), Permanent("550", "no"), RateLimited(1, "account"), AccountStopped("401", "no"), Moved("b", "301", "moved"),
    Temporary("451", "busy", up=True), Unknown("odd", up=True),
]  # fmt: skip
NONE_OF_IT: list[Outcome] = [
    NOTHING, Temporary("ValueError", "a function raised"), Temporary("not-configured", "gone", counts=False),
]  # fmt: skip


class Deep(Prefetch):
    """All of a flow is in memory."""

    MOST = 10_000


class Rig:
    """An account with a backlog, and its calls."""

    def __init__(self, most: int | None = 1, rule: CircuitSpec = RULE, chance: float = 0.5) -> None:
        self.now, self.rule, self.chance = 1_000_000, rule, chance
        self.agenda = Agenda(Scopes(), Deep())
        self.key = FlowKey(lane_key("t", "bot", "default"), "t", "", "q", 5, account_id("t", "a"))
        self.lane = self.agenda.lane(self.key.lane)
        self.account = Account(account_id("t", "a"), most)
        self.account.rule = rule
        self.lane.add_account(self.account)
        self.numbers = count(1)
        self.offer(500)

    def offer(self, many: int) -> None:
        for _ in range(many):
            number = next(self.numbers)
            self.agenda.offer(1, self.key, Entry(number, number, None, f"r{number}", None))

    def go(self) -> list[Release]:
        return self.agenda.release(self.now, 1000)

    def end(self, release: Release, outcome: Outcome) -> None:
        known = self.account.circuit
        self.account.circuit = circuit.ended(
            known, outcome, self.now, self.rule, self.account.concurrency, lambda: self.chance,
            trial=known is not None and release.trial is known,
        )  # fmt: skip
        self.agenda.settled(release.entry.id, self.now)

    def one(self, outcome: Outcome) -> None:
        (release,) = self.go()
        self.end(release, outcome)

    def open(self) -> Circuit:
        for _ in range(self.rule.after):
            self.one(DOWN)
        return self.circuit

    @property
    def circuit(self) -> Circuit:
        assert self.account.circuit is not None
        return self.account.circuit


# -- opening


def test_it_opens_at_so_many_failures_in_a_row_and_not_before() -> None:
    rig = Rig()
    for _ in range(RULE.after - 1):
        rig.one(DOWN)
        assert not rig.circuit.is_open
    rig.one(DOWN)
    assert rig.circuit.is_open and rig.go() == []


@pytest.mark.parametrize("answer", UP, ids=lambda each: type(each).__name__)
def test_an_answer_ends_the_run(answer: Outcome) -> None:
    rig = Rig()
    for _ in range(10):
        for _ in range(RULE.after - 1):
            rig.one(DOWN)
        rig.one(answer)
        assert rig.account.circuit is None


@pytest.mark.parametrize("nothing", NONE_OF_IT, ids=lambda each: type(each).__name__)
def test_what_tells_nothing_of_the_provider_leaves_the_run_alone(nothing: Outcome) -> None:
    rig = Rig()
    for _ in range(RULE.after - 1):
        rig.one(DOWN)
        rig.one(nothing)
    assert rig.circuit.failures == RULE.after - 1
    rig.one(DOWN)
    assert rig.circuit.is_open


@pytest.mark.parametrize("outcome", [*UP, *NONE_OF_IT], ids=lambda each: type(each).__name__)
def test_nothing_else_opens_it_and_an_account_without_failures_has_none(outcome: Outcome) -> None:
    rig = Rig()
    for _ in range(50):
        rig.one(outcome)
        assert rig.account.circuit is None


# -- probes


def test_one_probe_goes_after_each_pause_and_pauses_double_to_the_longest() -> None:
    rig = Rig(most=10, chance=0.0)
    for release in rig.go()[: RULE.after]:
        rig.end(release, DOWN)
    pauses = []
    for _ in range(10):
        opens = rig.circuit.until
        pauses.append(opens - rig.now)
        rig.now = opens - 1
        assert rig.go() == [] and rig.agenda.next_moment == opens
        rig.now = opens
        (probe,) = rig.go()
        rig.now += 40_000
        assert rig.go() == [] and rig.circuit.opens() == NEVER
        rig.end(probe, DOWN)
    assert pauses == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000]


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999])
def test_chance_only_lengthens_a_pause_and_by_its_share_at_most(chance: float) -> None:
    rig = Rig(chance=chance)
    pause = 1000
    rig.open()
    for _ in range(9):
        assert rig.circuit.until - rig.now == pause + int(pause * JITTER * chance)
        rig.now = rig.circuit.until
        rig.one(DOWN)
        pause = min(2 * pause, RULE.most_ms)


def test_a_probe_that_finds_out_nothing_is_followed_by_the_same_pause() -> None:
    rig = Rig(chance=0.0)
    rig.open()
    for _ in range(5):
        rig.now = rig.circuit.until
        rig.one(NOTHING)
        assert rig.circuit.until == rig.now + 1000


def test_a_probe_that_does_not_begin_makes_room_for_the_next() -> None:
    rig = Rig()
    rig.now = rig.open().until
    (probe,) = rig.go()
    rig.agenda.withdrawn(probe.entry.id)
    assert len(rig.go()) == 1


def test_calls_from_before_it_opened_neither_hold_up_a_probe_nor_move_it() -> None:
    rig = Rig(most=20)
    old = rig.go()
    for release in old[: RULE.after]:
        rig.end(release, DOWN)
    opened = rig.circuit
    for release in old[RULE.after : 10]:
        rig.end(release, DOWN)
    for release in old[10:13]:
        rig.end(release, Accepted())
    assert rig.circuit is opened and (opened.pause, opened.allowed, opened.flying) == (1000, 1, 0)
    rig.now = opened.until
    assert len(rig.go()) == 1  # seven of the old ones still hang


def test_what_was_handed_over_does_not_begin_once_it_is_open() -> None:
    rig = Rig(most=20)
    old = rig.go()
    for release in old[: RULE.after]:
        rig.end(release, DOWN)
    assert all(rig.agenda.closed(release, rig.now) for release in old[RULE.after :])
    rig.now = rig.circuit.until
    (probe,) = rig.go()
    assert not rig.agenda.closed(probe, rig.now)


# -- slow start


def test_calls_double_with_each_round_until_the_account_has_its_own_number() -> None:
    rig = Rig(most=20)
    rig.now = _open_wide(rig)
    rounds = []
    for _ in range(6):
        calls = rig.go()
        rounds.append(len(calls))
        rig.now += 50
        for release in calls:
            rig.end(release, Accepted())
    assert rounds == [1, 2, 4, 8, 16, 20]
    assert rig.account.circuit is None


def test_any_number_of_calls_is_allowed_again_in_the_end() -> None:
    rig = Rig(most=None)
    rig.now = _open_wide(rig)
    rig.offer(500)
    for _ in range(7):
        for release in rig.go():
            rig.end(release, Accepted())
    assert rig.account.circuit is None
    assert len(rig.go()) > FULL


def test_an_account_with_one_call_at_a_time_closes_with_its_probe() -> None:
    rig = Rig(most=1)
    rig.now = rig.open().until
    rig.one(Accepted())
    assert rig.account.circuit is None


def test_a_failure_in_slow_start_opens_it_again_with_a_longer_pause() -> None:
    rig = Rig(most=20, chance=0.0)
    rig.now = _open_wide(rig)
    for _ in range(3):
        calls = rig.go()
        for release in calls:
            rig.end(release, Accepted())
    calls = rig.go()
    assert len(calls) == 8
    rig.end(calls[0], DOWN)
    again = rig.circuit
    assert (again.allowed, again.until - rig.now) == (1, 2000)
    for release in calls[1:]:  # they began before it opened this time
        rig.end(release, DOWN)
    assert rig.circuit is again and rig.go() == []


def test_what_tells_nothing_does_not_move_the_slow_start() -> None:
    rig = Rig(most=20)
    rig.now = _open_wide(rig)
    (probe,) = rig.go()
    rig.end(probe, Accepted())
    for release in rig.go():
        rig.end(release, NOTHING)
    assert rig.circuit.allowed == 2 and len(rig.go()) == 2


def _open_wide(rig: Rig) -> int:
    """Open it with many calls under way, let them end, and answer when the probe may go."""
    for release in rig.go():
        rig.end(release, DOWN)
    return rig.circuit.until


# -- people


def test_a_person_makes_the_next_probe_due_at_once_and_the_pauses_short_again() -> None:
    rig = Rig(chance=0.0)
    rig.open()
    for _ in range(4):
        rig.now = rig.circuit.until
        rig.one(DOWN)
    rig.circuit.hasten(rig.now, RULE)
    rig.agenda.touched(rig.lane, rig.account)
    rig.one(DOWN)
    assert rig.circuit.until - rig.now == 2000


# -- forecasts


def test_the_reason_has_a_moment_exactly_while_it_rests() -> None:
    rig = Rig(most=20)
    until = _open_wide(rig)
    (reason,) = forecast.gate_reasons(rig.account, rig.now)
    assert (reason.kind, reason.until) == ("circuit-open", until)
    assert forecast.moment_of([rig.account], 0, rig.now, 10) == until
    rig.now = until
    assert forecast.gate_reasons(rig.account, rig.now) == []
    (probe,) = rig.go()
    (reason,) = forecast.gate_reasons(rig.account, rig.now)
    assert (reason.kind, reason.until) == ("circuit-open", None)
    rig.end(probe, Accepted())
    assert forecast.gate_reasons(rig.account, rig.now) == []
    assert len(rig.go()) == 2
    (reason,) = forecast.gate_reasons(rig.account, rig.now)
    assert (reason.kind, reason.until) == ("slow-start", None)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (DOWN, "connect"),
        (Unknown("cut", up=False), "no-answer"),
        (Unknown("late", "time-out", up=False), "time-out"),
    ],
)
def test_the_reason_names_the_last_failure(outcome: Outcome, code: str) -> None:
    rig = Rig()
    for _ in range(RULE.after):
        rig.one(outcome)
    (reason,) = forecast.gate_reasons(rig.account, rig.now)
    assert reason.text == f"account a found its provider down ({code}) and rests"


# -- whatever happens


@pytest.mark.parametrize("seed", range(60))
def test_over_any_history_the_rules_hold(seed: int) -> None:
    """A model of its own follows the same calls: who is a trial, how many there may be, when one may go."""
    draw = Random(seed)
    most = draw.choice([1, 2, 7, None])
    rig = Rig(most=most, rule=CircuitSpec(draw.choice([1, 2, 5]), 1000, 8000), chance=draw.random())
    if most is None:
        rig.offer(2000)
    down = 0.9
    under_way: list[Release] = []
    trials: set[int] = set()
    run, allowed, pause, earliest = 0, 0, 0, 0
    for _ in range(400):
        for release in rig.agenda.release(rig.now, 30):
            under_way.append(release)
            if allowed:
                trials.add(release.entry.id)
                assert rig.now >= earliest and len(trials) <= allowed
        if draw.random() < 0.1:
            down = draw.choice([0.0, 0.3, 0.9, 1.0])
        rig.now += draw.choice([0, 1, 30, 400, 3000])
        if not under_way or draw.random() < 0.3:
            rig.offer(1)
            continue
        release = under_way.pop(draw.randrange(len(under_way)))
        outcome = DOWN if draw.random() < down else draw.choice([*UP, *NONE_OF_IT])
        up = circuit.is_up(outcome)
        rig.end(release, outcome)
        if not allowed:
            run = run if up is None else 0 if up else run + 1
            if run == rig.rule.after:
                allowed, pause, run = 1, 1000, 0
                trials, earliest = set(), rig.now + pause
        elif release.entry.id in trials:
            trials.discard(release.entry.id)
            if up is False or (up is None and allowed == 1):
                pause = min(2 * pause, 8000) if up is False else pause
                allowed, trials, earliest = 1, set(), rig.now + pause
            elif up:
                allowed = allowed + 1 if allowed < (most or FULL) else 0
        assert (rig.account.circuit.allowed if rig.account.circuit else 0) == allowed
