"""Rule 9: the ledger of quota units always sums to zero. And what a day and a month are, in each zone."""

from datetime import UTC, datetime
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.outcomes import Outcome, Permanent, RateLimited, Temporary, Unknown
from paceline.model.states import State
from paceline.pacing.lane import Release
from paceline.pacing.quotas import Period, Quota, period_bounds
from tests.unit.simulated import ACCEPTED, START, Answer, Simulated

HOUR = 3_600_000
ZONES = sorted(available_timezones())
moments = st.integers(0, 2_100_000_000_000)


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


# -- the calendar


@pytest.mark.parametrize(
    ("now", "period", "zone", "hours"),
    [
        ("2024-05-15 12:00", "day", "UTC", 24),
        ("2024-03-31 12:00", "day", "Europe/Berlin", 23),
        ("2024-10-27 12:00", "day", "Europe/Berlin", 25),
        ("2024-04-07 12:00", "day", "Australia/Lord_Howe", 24.5),
        ("2018-11-04 12:00", "day", "America/Sao_Paulo", 23),  # midnight itself did not happen
        ("2018-02-17 12:00", "day", "America/Sao_Paulo", 25),  # its last hour happened twice
        ("2024-11-03 12:00", "day", "America/Havana", 25),  # its first hour happened twice
        ("2011-12-29 12:00", "day", "Pacific/Apia", 24),  # the next day was left out
        ("2024-02-10 12:00", "month", "Asia/Shanghai", 29 * 24),
        ("2024-03-10 12:00", "month", "Europe/Berlin", 31 * 24 - 1),
        ("2024-10-31 23:59", "month", "Europe/Berlin", 31 * 24 + 1),
        ("2024-12-31 23:59", "month", "UTC", 31 * 24),
        ("2011-12-10 12:00", "month", "Pacific/Apia", 30 * 24),
    ],
)
def test_how_long_a_day_or_a_month_is(now: str, period: Period, zone: str, hours: float) -> None:
    first, beyond = period_bounds(ms(now, zone), period, zone)
    assert (beyond - first) / HOUR == hours
    assert first <= ms(now, zone) < beyond


@given(moments, st.sampled_from(["day", "month"]), st.sampled_from(ZONES))
def test_periods_follow_one_another_without_gap_or_overlap(now: int, period: Period, zone: str) -> None:
    first, beyond = period_bounds(now, period, zone)
    assert first <= now < beyond
    assert period_bounds(first, period, zone) == period_bounds(beyond - 1, period, zone) == (first, beyond)
    assert period_bounds(beyond, period, zone)[0] == beyond
    assert period_bounds(first - 1, period, zone)[1] == first


@given(moments, st.sampled_from(ZONES))
def test_a_period_holds_one_date_only(now: int, zone: str) -> None:
    first, beyond = period_bounds(now, "day", zone)
    dates = {
        datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(zone)).date()
        for at in (first, now, beyond - 1)
    }
    assert len(dates) == 1


# -- the ledger


@given(
    st.integers(1, 20),
    st.lists(
        st.tuples(st.sampled_from(["reserve", "commit", "release", "wait"]), st.integers(0, 9)), max_size=80
    ),
)
def test_reserved_is_committed_and_released_and_under_way(maximum: int, steps: list[tuple[str, int]]) -> None:
    quota = Quota(maximum, "day", "Asia/Shanghai")
    now = START
    page = quota.resets_at
    reserved = committed = released = of_this_day = 0
    for step, hours in steps:
        if step == "wait":
            now += hours * HOUR
        elif step == "reserve" and quota.opens(now) <= now:
            quota.reserve(now)
            reserved += 1
        elif step in {"commit", "release"} and quota.flying:
            quota.opens(now)
            quota.settle(spent=step == "commit")
            committed += step == "commit"
            released += step == "release"
            of_this_day += step == "commit"
        quota.opens(now)
        if quota.resets_at != page:
            page, of_this_day = quota.resets_at, 0
        assert reserved - committed - released - quota.flying == 0
        assert quota.used == of_this_day + quota.flying
        assert quota.left(now) == maximum - quota.used >= 0


def test_a_unit_is_spent_by_acceptance_and_by_doubt_and_given_back_by_a_refusal() -> None:
    outcomes: list[Outcome] = [
        ACCEPTED,
        Permanent("550", "no"),
        RateLimited(1000),
        Unknown("cut off"),
        ACCEPTED,
    ]
    left = list(outcomes)
    world = Simulated(lambda _release, _now: Answer(100, left.pop(0) if left else ACCEPTED))
    quota = Quota(100, "day", "UTC")
    world.account("a", quotas=[quota])
    world.fill(world.key("a"), 4)
    world.run()
    assert sorted(state.label for state in world.ended.values()) == [
        "completed",
        "completed",
        "failed",
        "uncertain",
    ]
    assert (quota.used, quota.flying) == (3, 0)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/Sao_Paulo"])
def test_a_daily_quota_is_never_exceeded_and_fully_used(zone: str) -> None:
    random = Random(1)
    refused = Temporary("450", "busy")
    world = Simulated(
        lambda _release, _now: Answer(
            random.randrange(100, 5000), refused if random.random() < 0.2 else ACCEPTED
        )
    )
    world.account("a", "1/2min", quotas=[Quota(50, "day", zone), Quota(120, "month", zone)], concurrency=3)
    for _ in range(400):
        world.add(world.key("a"), max_attempts=1000)
    world.run()
    by_day: dict[int, int] = {}
    by_month: dict[int, int] = {}
    for send in world.sends:
        if send.outcome is ACCEPTED:
            for period, table in (("day", by_day), ("month", by_month)):
                first = period_bounds(send.started, "day" if period == "day" else "month", zone)[0]
                table[first] = table.get(first, 0) + 1
    assert set(world.ended.values()) == {State.COMPLETED}
    assert max(by_day.values()) == 50
    assert list(by_month.values()) == [120, 120, 120, 40]


def test_a_used_up_quota_opens_with_the_next_day_of_its_zone() -> None:
    quota = Quota(1, "day", "Asia/Shanghai")
    now = ms("2024-05-15 23:00", "Asia/Shanghai")
    quota.reserve(now)
    assert quota.opens(now) == ms("2024-05-16 00:00", "Asia/Shanghai")
    assert quota.opens(now + HOUR) > now + HOUR  # still under way: it may count for the new day
    quota.settle(spent=False)
    assert quota.opens(now + HOUR) <= now + HOUR


def test_what_the_journal_says_was_used_counts_after_a_restart() -> None:
    quota = Quota(10, "day", "UTC")
    quota.reserve_flying(2)
    quota.restore(7, START)
    assert quota.left(START) == 1


def test_a_release_that_reads_the_page_late_stays_in_its_day() -> None:
    quota = Quota(5, "day", "UTC")
    quota.reserve(START)
    quota.settle(spent=True)
    assert quota.left(START + 86_400_000) == 5


def test_the_calls_of_a_full_quota_wait_for_no_busy_loop() -> None:
    def call(_release: Release, _now: int) -> Answer:
        return Answer(1000)

    world = Simulated(call)
    world.account("a", quotas=[Quota(3, "day", "UTC")], concurrency=None)
    world.fill(world.key("a"), 30)
    world.run()
    assert len(world.sends) == 30
    assert world.steps < 30


def test_what_is_reserved_ahead_for_the_next_day_opens_nothing_today() -> None:
    midnight = 1_780_012_800_000
    quota = Quota(2, "day", "UTC")
    for _ in range(2):
        quota.reserve(midnight - 60_000)
        quota.settle(spent=True)
    assert quota.opens(midnight - 2) == midnight
    quota.reserve(midnight)  # handed over two milliseconds early, to start at midnight
    assert quota.opens(midnight - 2) == midnight
    assert quota.opens(midnight) <= midnight
