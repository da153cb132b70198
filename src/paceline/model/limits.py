"""Limits as text: ``"20/min"``, ``"200/h"``, ``"1/2s"``. They parse, and print back in one canonical form."""

import re

import msgspec

from paceline.model.durations import format_duration

MAX_COUNT = 10_000_000
MAX_SPAN_MS = 31 * 86_400_000

_UNIT_MS = {
    "ms": 1,
    "s": 1000, "sec": 1000, "second": 1000, "seconds": 1000,
    "m": 60_000, "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hr": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
}  # fmt: skip
_TEXT = re.compile(r"\s*([0-9][0-9_]*)\s*/\s*([0-9]+(?:\.[0-9]+)?)?\s*([a-z]+)\s*", re.ASCII)
_CANONICAL = {1000: "s", 60_000: "min", 3_600_000: "h", 86_400_000: "day"}


class Limit(msgspec.Struct, frozen=True, order=True):
    """At most `maximum` sends in every window of `span_ms` milliseconds, wherever the window starts."""

    maximum: int
    span_ms: int

    def __str__(self) -> str:
        """The canonical text; `parse_limit` reads it back as the same value."""
        unit = _CANONICAL.get(self.span_ms)
        if unit is None:
            unit = format_duration(self.span_ms)
        return f"{self.maximum}/{unit}"


def parse_limit(text: object) -> Limit:
    """Read a limit such as ``"20/min"``, ``"1_000/h"`` or ``"5/2s"``.

    Raises:
        ValueError: not a limit, or out of range (1..10,000,000 sends per 1 ms..31 days).
    """
    if not isinstance(text, str) or len(text) > 64:
        raise ValueError("must be a text like '20/min', '200/h' or '5/2s'")
    match = _TEXT.fullmatch(text.lower())
    if match is None or match[3] not in _UNIT_MS:
        raise ValueError(f"'{text[:40]}' is not a limit; write it like '20/min', '200/h' or '5/2s'")
    maximum = int(match[1].replace("_", ""))
    span = round(float(match[2] or 1) * _UNIT_MS[match[3]])
    if not 1 <= maximum <= MAX_COUNT:
        raise ValueError(
            f"the maximum must be between 1 and {MAX_COUNT:,}; pause the account to send nothing"
        )
    if not 1 <= span <= MAX_SPAN_MS:
        raise ValueError("the window must be between 1ms and 31 days")
    return Limit(maximum, span)
