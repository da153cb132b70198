"""How long to wait before the next attempt: exponential, a list, or fixed. Parsed from and printed to JSON."""

from typing import Any

import msgspec

from paceline.model.durations import format_duration, parse_duration

MAX_DELAY_MS = 7 * 86_400_000


class Exponential(msgspec.Struct, frozen=True, tag="exponential"):
    """`first_ms`, then times `factor` each time, at most `max_ms`; `jitter` is a share, 0..1, added or taken."""

    first_ms: int = 2000
    factor: float = 2.0
    max_ms: int = 300_000
    jitter: float = 0.1


class Delays(msgspec.Struct, frozen=True, tag="list"):
    """One delay after each failed attempt; the last one repeats."""

    delays_ms: tuple[int, ...]


class Fixed(msgspec.Struct, frozen=True, tag="fixed"):
    """The same delay after each failed attempt."""

    delay_ms: int


Backoff = Exponential | Delays | Fixed
_FIELDS = {"exponential": {"type", "first", "factor", "max", "jitter"}, "list": {"type", "delays"},
           "fixed": {"type", "delay"}}  # fmt: skip


def parse_backoff(value: object) -> Backoff:
    """Read ``{"type": "exponential", "first": 2, ...}``, ``{"type": "list", ...}`` or ``{"type": "fixed", ...}``.

    Raises:
        ValueError: names the part that is wrong.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError("must be an object with type 'exponential', 'list' or 'fixed'")
    unknown = sorted(map(str, set(value) - _FIELDS[kind]))
    if unknown:
        raise ValueError(f"has no field '{unknown[0]}'; fields are {', '.join(sorted(_FIELDS[kind]))}")
    if kind == "fixed":
        return Fixed(_delay(value.get("delay", 60), "delay"))
    if kind == "list":
        delays = value.get("delays")
        if not isinstance(delays, list) or not 1 <= len(delays) <= 100:
            raise ValueError("delays must be a list of 1 to 100 durations")
        return Delays(tuple(_delay(d, f"delays[{i}]") for i, d in enumerate(delays)))
    return Exponential(
        _delay(value.get("first", 2), "first"),
        _number(value.get("factor", 2), "factor", 1, 100),
        _delay(value.get("max", 300), "max"),
        _number(value.get("jitter", 0.1), "jitter", 0, 1),
    )


def print_backoff(backoff: Backoff) -> dict[str, Any]:
    """The JSON form that `parse_backoff` reads back."""
    if isinstance(backoff, Fixed):
        return {"type": "fixed", "delay": format_duration(backoff.delay_ms)}
    if isinstance(backoff, Delays):
        return {"type": "list", "delays": [format_duration(d) for d in backoff.delays_ms]}
    return {"type": "exponential", "first": format_duration(backoff.first_ms), "factor": backoff.factor,
            "max": format_duration(backoff.max_ms), "jitter": backoff.jitter}  # fmt: skip


def _delay(value: object, name: str) -> int:
    try:
        return parse_duration(value, most=MAX_DELAY_MS)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _number(value: object, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} must be a number between {least} and {most}")
    return float(value)
