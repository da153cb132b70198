"""Ids: they only grow, and they read back."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.model.ids import IdMaker, first_of, from_text, moment_of, to_text

NOW = 1_700_000_000_000
moments = st.integers(0, (1 << 42) - 1)


@given(st.lists(moments, min_size=2, max_size=50), st.integers(0, 63))
def test_ids_grow_whatever_the_clock_does(clock: list[int], node: int) -> None:
    maker = IdMaker(node)
    made = [maker.next(now) for now in clock]
    assert made == sorted(set(made))


def test_a_clock_that_was_set_back_repeats_no_id() -> None:
    before = IdMaker().next(NOW)
    assert IdMaker(last=before).next(NOW - 3_600_000) > before


def test_an_id_tells_its_millisecond() -> None:
    assert moment_of(IdMaker(5).next(NOW)) == NOW
    assert first_of(NOW) <= IdMaker(0).next(NOW) < first_of(NOW + 1)


def test_one_millisecond_has_32768_ids_and_then_borrows_from_the_next() -> None:
    maker = IdMaker(3)
    made = [maker.next(NOW) for _ in range(32_769)]
    assert [moment_of(made[0]), moment_of(made[-2]), moment_of(made[-1])] == [NOW, NOW, NOW + 1]


@given(st.integers(0, 63), st.integers(0, 63), st.integers(-5, 5))
def test_two_nodes_never_make_the_same_id(one: int, other: int, step: int) -> None:
    # Each has to make more in the millisecond than it has numbers for; the clock may be set back as well.
    first, second = IdMaker(one), IdMaker(other)
    for maker in (first, second):
        maker._last = maker.next(NOW) | 0x7FF0
    made = [maker.next(NOW + i // 20 * step) for i in range(60) for maker in (first, second)]
    if one != other:
        assert len(made) == len(set(made))


@given(st.integers(0, 63), st.integers(0, 63))
def test_an_id_that_follows_another_nodes_is_the_own_nodes(one: int, other: int) -> None:
    last = IdMaker(other).next(NOW)
    assert IdMaker(one, last).next(NOW - 1) >> 15 & 63 == one


@given(st.integers(0, (1 << 63) - 1))
def test_the_text_reads_back(number: int) -> None:
    text = to_text(number)
    assert len(text) == 13
    assert from_text(text) == number


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
def test_the_text_sorts_like_the_number(one: int, other: int) -> None:
    assert (to_text(one) < to_text(other)) is (one < other)


@given(st.text(max_size=14))
def test_any_other_text_is_no_id(text: str) -> None:
    number = from_text(text)
    assert number is None or to_text(number) == text


def test_what_cannot_be_an_id() -> None:
    good = to_text(IdMaker().next(NOW))
    for bad in ("", good[:-1], good + "0", good.upper(), "z" * 13, "8" + "0" * 12, good[:-1] + "u"):
        assert from_text(bad) is None
    assert from_text("7" + "z" * 12) == (1 << 63) - 1
