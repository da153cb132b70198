"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.durations import MAX_MS, format_duration, parse_duration

HOW = "must be seconds as a number, or a text like '30s', '5m' or '2h'"
RANGE = "must be between 0s and 400d"


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (0, 0),
        (1, 1000),
        (0.25, 250),
        (2.0, 2000),
        ("5", 5000),
        ("30s", 30_000),
        (" 30 s ", 30_000),
        ("1.5h", 5_400_000),
        ("5m", 300_000),
        ("5min", 300_000),
        ("250ms", 250),
        ("400d", MAX_MS),
        ("0.5ms", 0),
    ],
)
def test_what_a_duration_means(value: object, ms: int) -> None:
    assert parse_duration(value) == ms


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, HOW),
        (True, HOW),
        ([], HOW),
        ({}, HOW),
        (b"5s", HOW),
        ("", HOW),
        ("soon", HOW),
        ("-5s", HOW),
        ("+5s", HOW),
        ("1e3", HOW),
        ("5 weeks", HOW),
        ("5S", HOW),
        ("nan", HOW),
        ("٣s", HOW),
        ("1" * 33, HOW),
        (-1, RANGE),
        (-0.001, RANGE),
        ("401d", RANGE),
        ("9" * 32, RANGE),
        (float("nan"), RANGE),
        (float("inf"), RANGE),
        (float("-inf"), RANGE),
        (1e308, RANGE),
        (10**400, RANGE),
    ],
)
def test_a_bad_duration_is_told_how_to_write_it(value: object, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(value)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", ["0.5s", "11m"])
def test_bounds_are_named_as_durations(value: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(value, least=1000, most=600_000)
    assert str(caught.value) == "must be between 1s and 10m"


@given(st.integers(0, MAX_MS))
def test_what_is_printed_reads_back(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(st.integers(0, MAX_MS // 1000))
def test_a_number_means_seconds(seconds: int) -> None:
    assert parse_duration(seconds) == parse_duration(f"{seconds}s") == seconds * 1000


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (90_000, "90s"), (7_200_000, "2h"), (MAX_MS, "400d")],
)
def test_the_shortest_text_is_printed(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@given(
    st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.none()))
)
def test_whatever_is_given_ends_in_milliseconds_or_in_a_value_error(value: object) -> None:
    try:
        ms = parse_duration(value)
    except ValueError:
        return
    assert 0 <= ms <= MAX_MS
