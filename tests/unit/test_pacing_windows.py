"""Rule 5: no window of the given length holds more arrivals than the maximum, wherever it starts. And P3: full use."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import Limit, parse_limit
from paceline.model.outcomes import Outcome, RateLimited, Temporary
from paceline.pacing.lane import Release
from paceline.pacing.windows import NEVER, Spacing, Window
from tests.unit.simulated import (
    ACCEPTED,
    START,
    Answer,
    Simulated,
    delays,
    most_arrivals,
    most_at_once,
    most_possible,
)

SOME_LIMITS = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 8000)).map(lambda pair: str(Limit(*pair))),
    min_size=1,
    max_size=3,
)
DURATIONS = st.lists(st.integers(0, 5000), min_size=1, max_size=10)
CONCURRENCY = st.one_of(st.none(), st.integers(1, 6))


def cycle(durations: list[int], outcomes: list[Outcome] | None = None) -> Simulated:
    """A provider whose calls take these durations in turn."""
    count = 0

    def call(_release: Release, _now: int) -> Answer:
        nonlocal count
        count += 1
        outcome = outcomes[count % len(outcomes)] if outcomes else ACCEPTED
        return Answer(durations[count % len(durations)], outcome)

    return Simulated(call, seed=sum(durations))


# -- one window


def test_many_places_are_freed_in_the_order_in_which_they_were_taken() -> None:
    window = Window(Limit(500, 1000))
    for number in reversed(range(500)):
        window.occupy(START + number)
    twin = window.copy()
    assert window.opens(START) == START + 1000
    assert [window.used(START + 1000 + number) for number in range(500)] == list(range(499, -1, -1))
    assert (window.opens(START + 1499), twin.used(START)) == (0, 500)


def test_a_place_is_occupied_from_the_start_until_the_span_after_the_finish() -> None:
    window = Window(parse_limit("1/s"))
    assert window.opens(START) <= START
    window.take()
    assert window.opens(START + 50_000) == NEVER  # under way: only its end can tell
    window.finish(START + 300)
    assert window.opens(START + 1299) == START + 1300
    assert window.opens(START + 1300) <= START + 1300


def test_a_send_that_never_started_gives_its_place_back_at_once() -> None:
    window = Window(parse_limit("1/s"))
    window.take()
    window.withdraw()
    assert window.opens(START) <= START
    assert window.used(START) == 0


def test_a_lower_maximum_opens_when_enough_places_are_free() -> None:
    window = Window(parse_limit("2/s"))
    window.restore([START + 10, START + 40, START + 20, START + 30], flying=0)
    assert window.opens(START + 50) == START + 1030
    assert window.used(START + 1015) == 3


def test_history_counts_where_the_window_is_rebuilt() -> None:
    window = Window(parse_limit("3/s"))
    window.restore([START - 2000, START - 10], flying=1)
    assert window.used(START) == 2
    window.take()
    assert window.opens(START) == START + 990


def test_ends_that_are_reported_out_of_order_are_kept_in_order() -> None:
    window = Window(parse_limit("2/s"))
    for finished in (START + 500, START + 100):
        window.take()
        window.finish(finished)
    assert window.opens(START + 600) == START + 1100


def test_a_copy_is_independent_and_draws_nothing_from_the_live_chance() -> None:
    drawn: list[float] = []

    def chance() -> float:
        drawn.append(1.0)
        return 1.0

    spacing = Spacing(1000, 0.5, chance)
    twin = spacing.copy()
    twin.occupy(START)
    assert twin.opens(START + 1) == START + 1250
    assert spacing.opens(START + 1) <= START
    assert drawn == []


@given(
    st.integers(1, 5),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 300)), max_size=60),
)
def test_a_window_agrees_with_a_count_over_all_sends(
    maximum: int, span: int, steps: list[tuple[int, int]]
) -> None:
    """Against the definition: occupied are those that started, and finished less than a span ago."""
    window = Window(Limit(maximum, span))
    now = START
    sends: list[tuple[int, int]] = []
    flying: list[int] = []
    for wait, took in steps:
        now += wait
        for finish in sorted(f for f in flying if f <= now):
            window.finish(finish)
            flying.remove(finish)
        occupied = sum(1 for _, finish in sends if finish + span > now)
        assert window.used(now) == occupied
        assert (window.opens(now) <= now) is (occupied < maximum)
        if occupied < maximum:
            window.take()
            sends.append((now, now + took))
            flying.append(now + took)


# -- rule 5: whole accounts, all limits, all durations


@given(SOME_LIMITS, DURATIONS, CONCURRENCY)
def test_no_window_holds_more_arrivals_than_the_maximum(
    limits: list[str], durations: list[int], concurrency: int | None
) -> None:
    world = cycle(durations)
    world.account("a", *limits, concurrency=concurrency)
    world.fill(world.key("a"), 60)
    world.run()
    assert len(world.ended) == 60
    for text in limits:
        limit = parse_limit(text)
        assert most_possible(world.sends, limit.span_ms) <= limit.maximum
        assert most_arrivals(world.sends, limit.span_ms) <= limit.maximum
    if concurrency is not None:
        assert most_at_once(world.sends) <= concurrency


@given(SOME_LIMITS, DURATIONS, CONCURRENCY)
def test_each_send_starts_at_the_first_moment_that_every_limit_allows(
    limits: list[str], durations: list[int], concurrency: int | None
) -> None:
    world = cycle(durations)
    world.account("a", *limits, concurrency=concurrency)
    world.fill(world.key("a"), 60)
    world.run()
    assert set(delays(world.sends, limits, concurrency)) == {0}


@given(SOME_LIMITS, DURATIONS, st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=6))
def test_refused_calls_count_for_the_receiver_too(
    limits: list[str], durations: list[int], kinds: list[int]
) -> None:
    kind: list[Outcome] = [ACCEPTED, RateLimited(700), Temporary("450", "later")]
    world = cycle(durations, [ACCEPTED, *(kind[k] for k in kinds)])
    world.account("a", *limits, concurrency=3)
    world.fill(world.key("a"), 30)
    world.run()
    assert len(world.ended) == 30
    for text in limits:
        limit = parse_limit(text)
        assert most_possible(world.sends, limit.span_ms) <= limit.maximum


# -- P3: full use


@given(st.integers(1, 30), st.integers(1000, 600_000), st.integers(0, 30_000))
def test_an_account_sends_the_maximum_in_each_span_and_duration(maximum: int, span: int, took: int) -> None:
    world = Simulated(lambda _release, _now: Answer(took))
    account = world.account("a", str(Limit(maximum, span)), concurrency=None)
    rounds = 20
    world.fill(world.key("a"), maximum * (rounds + 1))
    world.run_for((span + took) * rounds - 1)
    assert len(world.of(account)) >= 0.99 * maximum * rounds


def test_the_usual_account_sends_200_an_hour_for_a_whole_day() -> None:
    world = Simulated(lambda _release, _now: Answer(250))
    account = world.account("a", "20/min", "200/h")
    world.fill(world.key("a"), 5000)
    world.run_for(86_400_000 - 1)
    # Nine hours' worth and more of 200 each: (3,600 s + 250 ms) is the period of a place.
    assert len(world.of(account)) >= 0.99 * 200 * 86_400_000 / 3_600_250
    assert most_possible(world.sends, 3_600_000) == 200
    assert most_possible(world.sends, 60_000) == 20


def test_with_calls_of_any_duration_no_time_is_lost() -> None:
    random = Random(5)
    limits = ["20/min", "200/h"]
    world = Simulated(lambda _release, _now: Answer(random.randrange(20_000)), seed=5)
    account = world.account("a", *limits, concurrency=4)
    world.fill(world.key("a"), 1000)
    world.run()
    assert set(delays(world.of(account), limits, 4)) == {0}
    assert most_possible(world.sends, 60_000) == 20
    assert most_at_once(world.sends) == 4
