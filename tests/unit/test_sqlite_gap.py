"""The gap that the writer asks long reads for: short, bounded, and not again for a while where it is no use."""

from paceline.stores.sqlite_gap import HOLD_S, MOST_S, REST_S, Gap


def test_nobody_waits_until_somebody_asks_and_only_for_a_moment_after() -> None:
    gap = Gap()
    assert gap.left(100.0) == 0
    assert gap.ask(100.0)
    assert gap.left(100.0) == HOLD_S
    assert gap.left(100.0 + HOLD_S) == 0  # a writer that asks no more holds up nobody
    gap.ask(101.0)
    gap.over()
    assert gap.left(101.0) == 0


def test_what_is_no_use_is_given_up_for_a_while() -> None:
    gap, now = Gap(), 100.0
    while gap.ask(now):
        assert now <= 100.0 + MOST_S
        now += 0.1
    assert now > 100.0 + MOST_S and gap.left(now) == 0
    assert not gap.ask(now + REST_S - 1)
    assert gap.ask(now + REST_S)


def test_each_time_has_its_own_bound() -> None:
    gap = Gap()
    for begin in (100.0, 200.0):
        for tenth in range(int(MOST_S * 10)):
            assert gap.ask(begin + tenth / 10)
        gap.over()
    assert gap.ask(300.0) and gap.ask(
        300.0 + MOST_S + HOLD_S + 0.1
    )  # that the writer slept in between does not count
