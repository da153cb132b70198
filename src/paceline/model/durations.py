"""Durations as people write them: seconds as a number, or text such as ``"30s"``, ``"5m"``, ``"2h"``."""

import math
import re

MAX_MS = 400 * 86_400_000
"""The longest duration taken anywhere: 400 days, so that a yearly schedule still fits."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|min|h|d)?\s*", re.ASCII)


def parse_duration(value: object, *, least: int = 0, most: int = MAX_MS) -> int:
    """Milliseconds of a number of seconds or of a text like ``"1.5h"``.

    Raises:
        ValueError: not a duration, or outside `least`..`most` (milliseconds); the text says what to write.
    """
    ms: float
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be seconds as a number, or a text like '30s', '5m' or '2h'")
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match is None or len(value) > 32:
            raise ValueError("must be seconds as a number, or a text like '30s', '5m' or '2h'")
        ms = float(match[1]) * _UNITS[match[2] or "s"]
    else:
        ms = float(value) * 1000 if abs(value) <= MAX_MS else math.inf
    if not math.isfinite(ms) or not least <= ms <= most:
        raise ValueError(f"must be between {format_duration(least)} and {format_duration(most)}")
    return round(ms)


def format_duration(ms: int) -> str:
    """The shortest text that `parse_duration` reads back as `ms`, for example ``"90s"`` or ``"2h"``."""
    for unit in ("d", "h", "m", "s"):
        size = _UNITS[unit]
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms" if ms else "0s"
