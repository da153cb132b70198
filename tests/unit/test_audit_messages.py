"""Lives that a journal may tell, and lives that it may not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_counts import DAY_MS, Counts, Days
from paceline.engine.audit_messages import Histories, histories
from paceline.engine.audit_order import FlowOrder
from paceline.engine.audit_report import MOST, Check
from paceline.model.journal import Counted, DayFigures, Standing
from paceline.model.states import State
from paceline.stores.base import Attempt

T = 1_800_000_000_000


def line(number: int, outcome: str | None, at: int = 0, **more: object) -> Attempt:
    """A call that begins `at` after T and takes 10 ms, or an ending without a call."""
    handed = T + at
    called = outcome not in {"cancel", "expire", "confirm", "deny"}
    row = Attempt(
        1, number, 7, "default/a" if called else "", handed, handed + 1 if called else None,
        handed + 10 if called else handed, outcome, None, None, None,
    )  # fmt: skip
    for name, value in more.items():
        setattr(row, name, value)
    return row


def standing(state: State, lines: Sequence[Attempt], **more: object) -> Standing:
    """A message whose last line is the last of `lines`."""
    last = lines[-1] if lines else None
    call = next((each for each in reversed(lines) if each.account), None)
    counting = sum(
        each.outcome in {"Accepted", "Temporary", "Permanent", "Moved", "Unknown"} for each in lines
    )
    row = Standing(
        1, 7, state, last.number if last else 0, counting, T - 5, T - 5, None, call.account if call else "",
        call.started if call else None, last.finished if last and state >= State.COMPLETED else None,
        T - 5, "smtp", None,
    )  # fmt: skip
    for name, value in more.items():
        setattr(row, name, value)
    return row


def checked(*pairs: tuple[Standing | None, Sequence[Attempt]]) -> Histories:
    steps = Steps(())
    order = FlowOrder(lambda _flow: False, frozenset(), steps, reordered=False)
    made = Histories(frozenset({"webhook"}), steps, order)
    made.feed(list(pairs))
    return made


def found(made: Histories) -> list[str]:
    return [finding.what for check in (made.handed, made.endings, made.times) for finding in check.findings]


def lives() -> list[tuple[State, list[Attempt]]]:
    return [
        (State.PENDING, []),
        (State.COMPLETED, [line(1, "Accepted")]),
        (State.COMPLETED, [line(1, "Temporary"), line(2, "Accepted", 100)]),
        (State.COMPLETED, [line(1, "RateLimited"), line(2, "Withheld", 50), line(3, "Accepted", 100)]),
        (State.COMPLETED, [line(1, "Unknown"), line(2, "confirm", 100)]),
        (State.FAILED, [line(1, "Permanent")]),
        (State.FAILED, [line(1, "Temporary"), line(2, "Temporary", 100)]),
        (State.FAILED, [line(1, "Unknown"), line(2, "deny", 100)]),
        (State.CANCELLED, [line(1, "cancel")]),
        (State.EXPIRED, [line(1, "expire")]),
        (State.EXPIRED, [line(1, "Temporary")]),
        (State.UNCERTAIN, [line(1, "Unknown")]),
        (State.RETRYING, [line(1, "Temporary")]),
        (State.SCHEDULED, [line(1, "Temporary")]),
        (State.PENDING, [line(1, "Moved")]),
    ]


@pytest.mark.parametrize(("state", "lines"), lives())
def test_a_life_that_the_machine_allows_is_clean(state: State, lines: list[Attempt]) -> None:
    assert found(checked((standing(state, lines), lines))) == []


@pytest.mark.parametrize(("state", "lines"), [life for life in lives() if life[0] >= State.COMPLETED])
def test_the_same_life_with_another_ending_is_not(state: State, lines: list[Attempt]) -> None:
    wrong = "Accepted" if state != State.COMPLETED else "Permanent"
    lines[-1].outcome = wrong
    words = found(checked((standing(state, lines), lines)))
    assert f"is {state.label}, but its last attempt ended as {wrong}" in words


def test_a_hand_over_under_way_is_the_line_that_is_still_missing() -> None:
    lines = [line(1, "Temporary")]
    row = standing(State.PROCESSING, lines, number=2, started_at=T + 500)
    made = checked((row, lines))
    assert found(made) == []
    assert made.endings.looked["messages under way"] == 1


def test_a_line_that_is_missing_in_the_middle_is_found() -> None:
    lines = [line(1, "Temporary"), line(3, "Accepted", 100)]
    assert "attempt 1 is followed by attempt 3" in found(checked((standing(State.COMPLETED, lines), lines)))


def test_the_last_line_may_only_be_missing_when_the_message_took_over_its_ending() -> None:
    lines = [line(1, "Accepted")]
    row = standing(State.COMPLETED, lines)
    assert "is completed, and attempt 1 is missing" in found(checked((row, [])))
    row.ending = "Accepted"
    assert found(checked((row, []))) == []
    row.ending = "Permanent"
    assert "is completed, but ended as Permanent" in found(checked((row, [])))


def test_the_oldest_lines_may_be_missing_unless_older_ones_are_kept() -> None:
    old = line(1, "Accepted", -100)
    lines = [line(2, "Accepted")]
    row = standing(State.COMPLETED, lines, attempts=1, id=2)
    lines[0].message = 2
    made = checked((row, lines))
    assert found(made) == []
    assert made.handed.looked["messages whose oldest attempts were cleaned"] == 1
    row.created_at = T - 5
    earlier = standing(State.COMPLETED, [old], created_at=T - 200, due_at=T - 200, turn=T - 200)
    words = found(checked((earlier, [old]), (row, lines)))
    assert words == ["attempts before 2 are missing, though older ones of other messages are kept"]


def test_a_line_too_many_is_found() -> None:
    lines = [line(1, "Accepted"), line(2, "Accepted", 100)]
    row = standing(State.COMPLETED, lines[:1])
    words = found(checked((row, lines)))
    assert "the journal has attempt 2, the message knows of 1" in words
    assert "went on after attempt 1, by which it was sent" in words


def test_attempts_do_not_overlap() -> None:
    lines = [line(1, "Temporary", 0), line(2, "Accepted", 8)]
    words = found(checked((standing(State.COMPLETED, lines), lines)))
    assert words == ["attempt 2 was handed over before attempt 1 had ended"]
    grain = [line(1, "Temporary", 0), line(2, "Accepted", 9)]
    assert found(checked((standing(State.COMPLETED, grain), grain))) == []


@pytest.mark.parametrize("outcome", ["Unknown", "Permanent", "cancel", "expire", "deny"])
def test_after_an_ending_another_hand_over_needs_a_revival(outcome: str) -> None:
    lines = [line(1, outcome), line(2, "Accepted", 100)]
    made = checked((standing(State.COMPLETED, lines, attempts=1), lines))
    assert found(made) == []
    assert made.handed.looked["messages that a person revived"] == 1
    words = found(checked((standing(State.COMPLETED, lines, attempts=2), lines)))
    assert f"was handed over again after attempt 1 ({outcome}), and nobody asked for it" in words


def test_where_a_repeat_is_safe_the_unknown_is_tried_again() -> None:
    lines = [line(1, "Unknown"), line(2, "Accepted", 100)]
    assert found(checked((standing(State.COMPLETED, lines, channel="webhook"), lines))) == []


def test_nothing_follows_a_send_not_even_under_way() -> None:
    lines = [line(1, "Accepted")]
    row = standing(State.PROCESSING, lines, number=2, attempts=0)
    assert "went on after attempt 1, by which it was sent" in found(checked((row, lines)))


def test_lines_of_a_message_that_is_gone_are_looked_at() -> None:
    lines = [line(1, "Temporary"), line(2, "Accepted", 100)]
    made = checked((None, lines))
    assert found(made) == []
    assert made.handed.looked["messages that are gone"] == 1
    assert found(checked((None, [lines[1], line(3, "Accepted", 300)]))) != []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"finished_at": T}, "is completed at another moment than its last attempt"),
        ({"started_at": T}, "is completed, but by another attempt than its last"),
        ({"sender": "default/b"}, "is completed, but by another attempt than its last"),
        ({"attempts": 2}, "counts more attempts than the journal has"),
        ({"due_at": T + 1}, "was handed over before it was due"),
        ({"created_at": T + 1, "turn": T + 1}, "was handed over before it was taken in"),
        ({"expires_at": T - 1000}, "was handed over after it had expired"),
    ],
)
def test_a_message_that_contradicts_its_last_attempt_is_found(change: dict[str, object], words: str) -> None:
    lines = [line(1, "Accepted")]
    assert found(checked((standing(State.COMPLETED, lines, **change), lines))) == [words]


def test_a_call_does_not_end_before_it_begins() -> None:
    lines = [line(1, "Accepted", started=T + 20)]
    assert "attempt 1 ended before it began" in found(checked((standing(State.COMPLETED, lines), lines)))


def test_only_the_first_findings_are_listed_and_all_are_counted() -> None:
    check = Check("one", "it holds")
    for _ in range(MOST + 5):
        check.fault("wrong")
    assert (len(check.findings), check.broken) == (MOST, MOST + 5)


# -- order


def order_of(
    rows: list[tuple[int, int]],
    passes: Callable[[int], bool] = lambda _flow: False,
    *,
    reordered: bool = False,
) -> FlowOrder:
    """Messages of one flow by id as (taken in, handed over)."""
    order = FlowOrder(passes, frozenset({"default/told"}), Steps(()), reordered=reordered)
    for number, (created, handed) in enumerate(rows):
        row = standing(State.COMPLETED, [], id=number, created_at=created, turn=created)
        order.first(row, line(1, "Accepted", handed_over=handed))
    return order


def test_first_come_is_first_handed_over() -> None:
    assert order_of([(0, 5000), (1, 5000), (2, 6000)]).check.broken == 0


def test_a_message_that_was_overtaken_is_named_with_the_one_that_did_it() -> None:
    order = order_of([(0, 5000), (1, 9000), (2, 6000), (3, 7000), (4, 9500)])
    assert [finding.messages for finding in order.check.findings] == [(1, 2)]


def test_who_was_hardly_in_line_was_not_overtaken() -> None:
    assert order_of([(0, 900), (1, 800)]).check.broken == 0


def test_where_messages_stand_aside_others_may_pass() -> None:
    assert order_of([(0, 9000), (1, 5000)], lambda _flow: True).check.broken == 0


def test_overtaking_is_only_counted_where_people_moved_messages() -> None:
    order = order_of([(0, 9000), (1, 5000)], reordered=True)
    assert order.check.broken == 0
    assert order.check.looked["messages that were overtaken"] == 1


def test_messages_whose_place_was_changed_and_told_accounts_are_not_judged() -> None:
    order = order_of([(0, 5000)])
    row = standing(State.COMPLETED, [], id=9, created_at=1, turn=4000)
    order.first(row, line(1, "Accepted", handed_over=4500))
    row = standing(State.COMPLETED, [], id=10, created_at=2, turn=2)
    order.first(row, line(1, "Accepted", handed_over=4500, account="default/told"))
    assert order.check.broken == 0


# -- pages


def paged(rows: list[object], sizes: list[int]) -> Callable[[], AsyncIterator[list[object]]]:
    async def pages() -> AsyncIterator[list[object]]:
        left, turn = list(rows), 0
        while left:
            size = sizes[turn % len(sizes)]
            yield left[:size]
            left, turn = left[size:], turn + 1

    return pages


@given(
    st.dictionaries(st.integers(1, 30), st.tuples(st.booleans(), st.integers(0, 3)), max_size=20),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_messages_and_lines_come_together_wherever_the_pages_are_cut(
    kept: dict[int, tuple[bool, int]], some: list[int], others: list[int]
) -> None:
    stands = [standing(State.PENDING, [], id=id_) for id_ in sorted(kept) if kept[id_][0]]
    lines = [line(n, "Temporary", message=id_) for id_ in sorted(kept) for n in range(1, kept[id_][1] + 1)]

    async def run() -> list[tuple[int | None, list[tuple[int, int]]]]:
        found = []
        both = histories(paged(list(stands), some)(), paged(list(lines), others)())  # type: ignore[arg-type]  # rows of either kind
        async for page in both:
            found += [
                (row.id if row else None, [(each.message, each.number) for each in of]) for row, of in page
            ]
        return found

    wanted = [
        (id_ if kept[id_][0] else None, [(id_, n) for n in range(1, kept[id_][1] + 1)])
        for id_ in sorted(kept) if kept[id_][0] or kept[id_][1]
    ]  # fmt: skip
    assert asyncio.run(run()) == wanted


# -- counts


def test_a_count_that_is_off_is_found() -> None:
    counts = Counts()
    counts.feed([Counted(7, "", 2, 3, 3), Counted(7, "default/a", 5, 3, 2)])
    assert [finding.what for finding in counts.check.findings] == [
        "flow 7: 3 messages are counted as completed last sent by default/a, there are 2"
    ]


def figures(**more: int) -> DayFigures:
    row = DayFigures(10, "t", "q", "c", "a", 5, 2, 3, 90, 4, 1, 1, 1, 3, 60, 100)
    for name, value in more.items():
        setattr(row, name, value)
    return row


@pytest.mark.parametrize(
    ("change", "whole", "cleaned"),
    [
        ({}, 0, 0),
        ({"completed": 6}, 1, 0),
        ({"completed": 4}, 1, 1),
        ({"failed": 1}, 1, 1),
        ({"failed": 6}, 1, 0),
        ({"retries": 4}, 1, 0),
        ({"send_ms": 59}, 1, 1),
        ({"send_ms": 101}, 1, 0),
    ],
)
def test_the_figures_of_a_day_are_those_of_its_lines(
    change: dict[str, int], whole: int, cleaned: int
) -> None:
    for whole_from, broken in ((10 * DAY_MS, whole), (10 * DAY_MS + 1, cleaned), (None, cleaned)):
        days = Days(whole_from, 0)
        days.feed([figures(**change)])
        assert days.check.broken == broken
    later = Days(0, 10 * DAY_MS + 1)
    later.feed([figures(**change)])
    assert later.check.broken == 0
