"""Checks of single input values. Each returns the value to keep or raises ValueError with one plain sentence."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from paceline.model.durations import MAX_MS, parse_duration

PRIORITIES = {"critical": 10, "high": 8, "normal": 5, "low": 3, "background": 1}
NAMED_DELAYS = {"short": 5000, "medium": 30_000, "long": 300_000, "very-long": 1_800_000}
PAST_GRACE_MS = 60_000
"""How far in the past a `scheduled_at` may lie and still mean 'now': two clocks that differ a little."""

_LATEST = (
    4_102_444_800_000  # the year 2100: later is a slip, for example milliseconds where seconds are meant
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
NAME = r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}"
"""What a name of ours looks like, as a regular expression."""
_NAME = re.compile(NAME, re.ASCII)
_ZONED = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:[0-5]\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def check_name(value: object) -> str:
    """A name of ours (queue, account, pool...): letters, digits and . _ @ : + -, at most 128."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 128 letters, digits or . _ @ : + - and start with a letter or digit")
    return value


def check_label(value: object, most: int = 256) -> str:
    """A free text of one line: no control characters, not empty."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if not value or len(value) > most:
        raise ValueError(f"must have 1 to {most} characters")
    if _CONTROL.search(value):
        raise ValueError("must not contain line breaks, NUL or other control characters")
    return value


def check_integer(value: object, least: int, most: int) -> int:
    """A whole number; true and false are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"must be a whole number between {least:,} and {most:,}")
    return value


def check_number(value: object, least: float, most: float) -> float:
    """A finite number."""
    # Comparing refuses NaN as well, and whole numbers that are too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"must be a number between {least:g} and {most:g}")
    return float(value)


def check_boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def check_priority(value: object) -> int:
    """0 (least) to 10 (most urgent), or a name."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        raise ValueError("must be 0 (least) to 10 (most urgent), or one of " + ", ".join(PRIORITIES))
    return value


def check_delay(value: object) -> int:
    """Milliseconds: a duration, or short, medium, long, very-long."""
    if isinstance(value, str) and value in NAMED_DELAYS:
        return NAMED_DELAYS[value]
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}, or one of {', '.join(NAMED_DELAYS)}") from None


def check_time(value: object) -> int:
    """Milliseconds since 1970 of an RFC 3339 time with a zone."""
    if not isinstance(value, str) or not _ZONED.fullmatch(value):
        raise ValueError("must be a time with a zone, like 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00")
    try:
        moment = datetime.fromisoformat(value.upper().replace(" ", "T"))
        ms = math.floor(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("is not a time that exists in the calendar") from None
    if not 0 <= ms <= _LATEST:
        raise ValueError("must be before the year 2100")
    return ms


def check_object(value: object, most: int) -> dict[str, Any]:
    """A JSON object with at most `most` members."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    if len(value) > most:
        raise ValueError(f"must have at most {most} members")
    return value


@lru_cache(maxsize=1024)
def print_time(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return f"{_second_text(ms // 1000)}{ms % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where something known is close, else nothing."""
    close = get_close_matches(word[:64], list(known), 1, 0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown_fields(body: Mapping[str, Any], known: Iterable[str]) -> list[tuple[str, str]]:
    """(pointer, problem) for every member that is not known."""
    names = set(known)
    return [
        (pointer(name), "there is no such field" + suggestion(name, names))
        for name in body
        if name not in names
    ]


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901); parts are cut to a readable length."""
    return "".join("/" + str(part)[:80].replace("~", "~0").replace("/", "~1") for part in parts)


MAX_TIMEOUT_MS = 86_400_000
LONGEST_DELAY_MS = MAX_MS
