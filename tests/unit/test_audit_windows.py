"""The streamed checks of limits say what a check of every set of sends says."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_limits import AccountLimits, AccountPass, Limits, WidePass
from paceline.engine.audit_quotas import SETTLING_MS
from paceline.engine.audit_report import LimitFigures
from paceline.engine.audit_windows import Watch
from paceline.model.accounts import QuotaSpec
from paceline.model.journal import Sent
from paceline.model.limits import Limit
from paceline.model.messages import FlowKey
from paceline.pacing.scopes import Rule
from paceline.pacing.windows import Window

DAY = 86_400_000


class Call(NamedTuple):
    started: int
    finished: int
    least: int


def calls_of(rows: list[tuple[int, int, int]]) -> list[Call]:
    """By start; a crash moves the least moment of the start before the start itself."""
    return sorted(Call(start, start + took, start - before) for start, took, before in rows)


CALLS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12), st.sampled_from([0, 0, 0, 5])), max_size=25
).map(calls_of)
LIMITS = st.builds(Limit, st.integers(1, 4), st.integers(1, 20))


class Told:
    """What a watch told of."""

    def __init__(self, limit: Limit, calls: list[Call]) -> None:
        self.proven: list[tuple[int, tuple[int, ...], int]] = []
        self.early: list[tuple[int, int, int]] = []
        self.figures = LimitFigures("account a", str(limit), limit.maximum)
        watch = Watch(
            limit, self.figures, lambda *told: self.proven.append(told), lambda *told: self.early.append(told)
        )
        for number, call in enumerate(calls):
            watch.start(call.started, call.least, call.finished, number)
        watch.close()


def most_in_a_window(calls: list[Call], span: int) -> int:
    """The most calls that lie wholly in one window, tried out for every first and last moment."""
    return max(
        (
            sum(one.least <= each.least and each.finished <= last for each in calls)
            for one in calls
            for last in {each.finished for each in calls}
            if last - one.least < span
        ),
        default=0,
    )


def most_places(calls: list[Call], span: int) -> int:
    return max(
        (sum(each.started <= one.started < each.finished + span for each in calls) for one in calls),
        default=0,
    )


@given(CALLS, LIMITS)
def test_the_worst_window_is_that_of_a_search_through_all_windows(calls: list[Call], limit: Limit) -> None:
    told = Told(limit, calls)
    worst = most_in_a_window(calls, limit.span_ms)
    assert told.figures.arrivals == worst
    assert bool(told.proven) == (worst > limit.maximum)
    for count, messages, at in told.proven:
        assert count > limit.maximum
        first, last = (calls[message] for message in messages)
        assert last.finished == at
        assert at - first.least < limit.span_ms


@given(CALLS, LIMITS)
def test_the_most_places_are_those_of_a_count_at_every_start(calls: list[Call], limit: Limit) -> None:
    # The places of a call are told apart only if it takes a while or the limit has a span, which it always has.
    told = Told(limit, calls)
    assert told.figures.places == most_places(calls, limit.span_ms)
    assert bool(told.early) == (most_places(calls, limit.span_ms) > limit.maximum)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), max_size=40), LIMITS)
def test_who_keeps_to_the_window_of_the_dispatcher_is_never_found_at_fault(
    wanted: list[tuple[int, int]], limit: Limit
) -> None:
    window, calls, now = Window(limit), [], 0
    flying: list[int] = []
    for pause, took in wanted:
        now += pause
        while True:
            for finished in sorted(f for f in flying if f <= now):
                flying.remove(finished)
                window.finish(finished)
            opens = window.opens(now)
            if opens <= now:
                break
            now = min([opens, *flying])
        window.take()
        flying.append(now + took)
        calls.append(Call(now, now + took, now))
    told = Told(limit, calls)
    assert (told.proven, told.early) == ([], [])
    assert told.figures.places <= limit.maximum


# -- accounts, wide limits, quotas


def sent(message: int, at: int, took: int = 0, **more: object) -> Sent:
    row = Sent("default/a", message, 1, "r", None, at, at, at + took, "Accepted", None)
    for name, value in more.items():
        setattr(row, name, value)
    return row


def account_pass(
    limits: Limits, *known: Limit, changed: int = 0, quota: QuotaSpec | None = None
) -> AccountPass:
    rows = tuple((str(limit), limit) for limit in known)
    return AccountPass(limits, {"default/a": AccountLimits(rows, quota, changed)})


def test_each_account_is_held_against_its_own_limits() -> None:
    limits = Limits(0, Steps(()))
    checked = account_pass(limits, Limit(1, 1000))
    checked.feed([sent(1, 0), sent(2, 10, account="default/b"), sent(3, 20, account="default/b")])
    checked.feed([sent(4, 0, account="default/a")])
    checked.close()
    assert limits.windows.broken == limits.places.broken == 0
    assert limits.windows.looked["sends without a limit"] == 2


def test_a_call_that_a_crash_cut_off_may_have_arrived_at_any_moment_since_its_hand_over() -> None:
    for code, broken in (("crash", 0), (None, 1)):
        limits = Limits(0, Steps(()))
        checked = account_pass(limits, Limit(1, 1000))
        row = sent(1, 5000, handed_over=100, outcome="Unknown", code=code)
        checked.feed([row, sent(2, 5500)])
        checked.close()
        assert (limits.windows.broken, limits.places.broken) == (broken, 1)


def test_what_was_sent_before_the_limit_was_set_is_told_apart() -> None:
    limits = Limits(0, Steps(()))
    checked = account_pass(limits, Limit(1, 10_000), changed=1000)
    rows = [sent(1, 10), sent(2, 20), sent(3, 1000 + SETTLING_MS - 1), sent(4, 1000 + SETTLING_MS)]
    checked.feed(rows)
    checked.close()
    assert limits.figures[0].before == 3
    assert [finding.messages for finding in limits.places.findings] == [(4,)]
    assert limits.windows.broken == 0, "only one send is surely under the present limit"


def test_a_limit_that_no_send_is_older_than_holds_from_the_first_one_on() -> None:
    limits = Limits(0, Steps(()))
    checked = account_pass(limits, Limit(1, 10_000), changed=1000)
    checked.feed([sent(1, 1000), sent(2, 1001)])
    checked.close()
    assert limits.windows.broken == limits.places.broken == 1


def test_before_the_moment_asked_for_sends_are_history() -> None:
    limits = Limits(2000, Steps(()))
    checked = account_pass(limits, Limit(1, 1000))
    checked.feed([sent(1, 1000), sent(2, 1001), sent(3, 1999), sent(4, 2500)])
    checked.close()
    assert [finding.messages for finding in limits.places.findings] == [(4,)]


def test_moments_that_the_clock_showed_twice_are_not_judged() -> None:
    steps = Steps(())
    steps.twice = [(1000, 5000)]
    limits = Limits(0, steps)
    checked = account_pass(limits, Limit(1, 100))
    checked.feed([sent(1, 1500), sent(2, 1510), sent(3, 7000), sent(4, 7010)])
    checked.close()
    assert [finding.messages for finding in limits.places.findings] == [(4,)]
    assert [finding.messages for finding in limits.windows.findings] == [(3, 4)]


KEY = FlowKey("default/smtp/default", "acme", "", "email", 5, "")


def wide(rule: Rule, rows: list[Sent]) -> Limits:
    limits = Limits(0, Steps(()))
    checked = WidePass(
        limits, [(rule, 0)], {1: KEY, 2: FlowKey("default/smtp/default", "other", "", "sms", 5, "")}
    )
    checked.feed(rows)
    checked.close()
    return limits


def test_a_wide_limit_counts_what_it_covers_over_all_accounts() -> None:
    rows = [sent(1, 0), sent(2, 10, flow=2, account="default/b"), sent(3, 20, account="default/c")]
    assert wide(Rule("all", Limit(2, 1000)), rows).windows.broken == 1
    assert wide(Rule("acme", Limit(1, 1000), tenant="acme"), rows).windows.broken == 1
    assert wide(Rule("sms", Limit(1, 1000), queue="sms"), rows).windows.broken == 0
    assert wide(Rule("smtp", Limit(3, 1000), channel="smtp"), rows).windows.broken == 0


def test_a_limit_of_each_recipient_counts_them_apart() -> None:
    rows = [sent(1, 0), sent(2, 10, recipient="s"), sent(3, 20), sent(4, 30, recipient="")]
    found = wide(Rule("each", Limit(1, 1000), recipient="*"), rows)
    assert [finding.messages for finding in found.windows.findings] == [(1, 3)]
    assert found.figures[0].key == "r"
    assert wide(Rule("one", Limit(1, 1000), recipient="s"), rows).windows.broken == 0
    groups = [sent(1, 0, group="g"), sent(2, 10), sent(3, 20, group="g", recipient="s")]
    assert wide(Rule("group", Limit(1, 1000), group="*"), groups).windows.broken == 1
    assert wide(Rule("both", Limit(1, 1000), group="*", recipient="*"), groups).windows.broken == 0


def test_a_day_holds_its_quota_and_a_call_at_midnight_counts_for_both_days() -> None:
    limits = Limits(0, Steps(()))
    checked = account_pass(limits, quota=QuotaSpec(day=2, zone="UTC"))
    checked.feed(
        [sent(1, 10), sent(2, DAY - 5, took=10), sent(3, DAY + 50), sent(4, DAY + 60, outcome="Permanent")]
    )
    checked.feed([sent(5, DAY + 70)])
    checked.close()
    assert [finding.messages for finding in limits.quotas.findings] == [(5,)]
    assert (limits.figures[0].places, limits.figures[0].arrivals) == (3, 2)
    limits = Limits(0, Steps(()))
    checked = account_pass(limits, quota=QuotaSpec(day=2, zone="UTC"))
    checked.feed([sent(1, 10), sent(2, 20), sent(3, DAY - 5, took=10)])
    assert [finding.messages for finding in limits.quotas.findings] == [(3,)]
