"""Limits as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.limits import MAX_COUNT, MAX_SPAN_MS, Limit, parse_limit

HOW = "must be a text like '20/min', '200/h' or '5/2s'"
COUNT = "the maximum must be between 1 and 10,000,000; pause the account to send nothing"
SPAN = "the window must be between 1ms and 31 days"


def not_a_limit(text: str) -> str:
    return f"'{text}' is not a limit; write it like '20/min', '200/h' or '5/2s'"


@pytest.mark.parametrize(
    ("text", "limit", "printed"),
    [
        ("20/min", Limit(20, 60_000), "20/min"),
        ("20/m", Limit(20, 60_000), "20/min"),
        ("20 / Minute", Limit(20, 60_000), "20/min"),
        ("200/h", Limit(200, 3_600_000), "200/h"),
        ("200/60min", Limit(200, 3_600_000), "200/h"),
        ("1_000/day", Limit(1000, 86_400_000), "1000/day"),
        ("1000/24h", Limit(1000, 86_400_000), "1000/day"),
        ("5/2s", Limit(5, 2000), "5/2s"),
        ("1/1.5s", Limit(1, 1500), "1/1500ms"),
        ("1/1ms", Limit(1, 1), "1/1ms"),
        ("3/90s", Limit(3, 90_000), "3/90s"),
        ("7/2days", Limit(7, 172_800_000), "7/2d"),
        ("10000000/31d", Limit(MAX_COUNT, MAX_SPAN_MS), "10000000/31d"),
    ],
)
def test_what_a_limit_means_and_how_it_is_printed(text: str, limit: Limit, printed: str) -> None:
    assert parse_limit(text) == limit
    assert str(limit) == printed
    assert parse_limit(printed) == limit


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, HOW),
        (20, HOW),
        (True, HOW),
        (b"20/min", HOW),
        (["20/min"], HOW),
        ("1" * 65, HOW),
        ("", not_a_limit("")),
        ("20", not_a_limit("20")),
        ("20/", not_a_limit("20/")),
        ("/min", not_a_limit("/min")),
        ("-1/min", not_a_limit("-1/min")),
        ("1.5/min", not_a_limit("1.5/min")),
        ("20/month", not_a_limit("20/month")),
        ("20/min/h", not_a_limit("20/min/h")),
        ("٢٠/min", not_a_limit("٢٠/min")),
        ("_1/s", not_a_limit("_1/s")),
        (
            "twenty per minute, if that is all right with you",
            not_a_limit("twenty per minute, if that is all right "),
        ),
        ("0/min", COUNT),
        ("10000001/min", COUNT),
        ("1/0s", SPAN),
        ("1/0.4ms", SPAN),
        ("1/32d", SPAN),
        ("1/" + "9" * 60 + "d", SPAN),
    ],
)
def test_a_bad_limit_is_told_how_to_write_it(text: object, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_limit(text)
    assert str(caught.value) == problem


@given(st.integers(1, MAX_COUNT), st.integers(1, MAX_SPAN_MS))
def test_what_is_printed_reads_back(maximum: int, span_ms: int) -> None:
    limit = Limit(maximum, span_ms)
    assert parse_limit(str(limit)) == limit


@given(st.text(max_size=70))
def test_whatever_is_given_ends_in_a_limit_or_in_a_value_error(text: str) -> None:
    try:
        limit = parse_limit(text)
    except ValueError:
        return
    assert 1 <= limit.maximum <= MAX_COUNT
    assert 1 <= limit.span_ms <= MAX_SPAN_MS
