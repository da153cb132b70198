"""Back-off as JSON."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.backoff import (
    MAX_DELAY_MS,
    Backoff,
    Delays,
    Exponential,
    Fixed,
    parse_backoff,
    print_backoff,
)

HOW = "must be an object with type 'exponential', 'list' or 'fixed'"
LIST = "delays must be a list of 1 to 100 durations"
DURATION = "must be seconds as a number, or a text like '30s', '5m' or '2h'"


@pytest.mark.parametrize(
    ("value", "backoff"),
    [
        ({"type": "fixed"}, Fixed(60_000)),
        ({"type": "fixed", "delay": 0}, Fixed(0)),
        ({"type": "fixed", "delay": "7d"}, Fixed(MAX_DELAY_MS)),
        ({"type": "list", "delays": [10, "30s", "1m"]}, Delays((10_000, 30_000, 60_000))),
        ({"type": "exponential"}, Exponential(2000, 2.0, 300_000, 0.1)),
        (
            {"type": "exponential", "first": 1, "factor": 3, "max": "1h", "jitter": 0},
            Exponential(1000, 3.0, 3_600_000, 0.0),
        ),
    ],
)
def test_what_a_back_off_means(value: dict[str, Any], backoff: Backoff) -> None:
    assert parse_backoff(value) == backoff


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, HOW),
        ("fixed", HOW),
        ([], HOW),
        ({}, HOW),
        ({"type": None}, HOW),
        ({"type": "linear"}, HOW),
        ({"type": ["fixed"]}, HOW),
        ({"type": {}}, HOW),
        ({"type": "fixed", "delays": [1]}, "has no field 'delays'; fields are delay, type"),
        ({"type": "fixed", "delay": 1, 2: 3}, "has no field '2'; fields are delay, type"),
        ({"type": "list", "delay": 1}, "has no field 'delay'; fields are delays, type"),
        (
            {"type": "exponential", "base": 1},
            "has no field 'base'; fields are factor, first, jitter, max, type",
        ),
        ({"type": "fixed", "delay": "soon"}, f"delay {DURATION}"),
        ({"type": "fixed", "delay": None}, f"delay {DURATION}"),
        ({"type": "fixed", "delay": "8d"}, "delay must be between 0s and 7d"),
        ({"type": "fixed", "delay": -1}, "delay must be between 0s and 7d"),
        ({"type": "list"}, LIST),
        ({"type": "list", "delays": []}, LIST),
        ({"type": "list", "delays": "10"}, LIST),
        ({"type": "list", "delays": [1] * 101}, LIST),
        ({"type": "list", "delays": [1, "x"]}, f"delays[1] {DURATION}"),
        ({"type": "exponential", "first": []}, f"first {DURATION}"),
        ({"type": "exponential", "max": "8d"}, "max must be between 0s and 7d"),
        ({"type": "exponential", "factor": 0.5}, "factor must be a number between 1 and 100"),
        ({"type": "exponential", "factor": True}, "factor must be a number between 1 and 100"),
        ({"type": "exponential", "factor": 10**400}, "factor must be a number between 1 and 100"),
        ({"type": "exponential", "jitter": float("nan")}, "jitter must be a number between 0 and 1"),
        ({"type": "exponential", "jitter": "0.1"}, "jitter must be a number between 0 and 1"),
    ],
)
def test_a_bad_back_off_is_told_which_part(value: object, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_backoff(value)
    assert str(caught.value) == problem


delays = st.integers(0, MAX_DELAY_MS)
backoffs = st.one_of(
    st.builds(Fixed, delays),
    st.builds(Delays, st.lists(delays, min_size=1, max_size=100).map(tuple)),
    st.builds(Exponential, delays, st.floats(1, 100), delays, st.floats(0, 1)),
)


@given(backoffs)
def test_what_is_printed_reads_back(backoff: Backoff) -> None:
    assert parse_backoff(print_backoff(backoff)) == backoff
