"""Quotas: a limit whose window is a calendar day or month in a zone.

A unit is reserved when a send is decided, committed when the provider takes it (or may have), released when
it refuses: reserved = committed + released + under way, always.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["day", "month"]


def period_bounds(now: int, period: Period, zone: str) -> tuple[int, int]:
    """First and past-the-last millisecond of the calendar period that holds `now` in `zone`."""
    local = datetime.fromtimestamp(now / 1000, UTC).astimezone(ZoneInfo(zone))
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "month":
        first = first.replace(day=1)
        beyond = (first + timedelta(days=32)).replace(day=1)
    else:
        beyond = first + timedelta(days=1)
    return _ms(first), _ms(beyond)


def _ms(local: datetime) -> int:
    return round(local.timestamp() * 1000)


class Quota:
    """Units of one calendar period. `used` counts those reserved and those committed."""

    __slots__ = ("begins_at", "flying", "maximum", "period", "resets_at", "used", "zone")

    def __init__(self, maximum: int, period: Period, zone: str) -> None:
        """`maximum` sends for each `period` of the calendar of `zone` (an IANA name)."""
        self.maximum, self.period, self.zone = maximum, period, zone
        self.used = 0
        self.flying = 0
        self.begins_at = 0
        self.resets_at = 0

    def opens(self, now: int) -> int:
        """The moment from which one more unit may be reserved."""
        self._turn_page(now)
        if self.used >= self.maximum:
            return self.resets_at
        # Units of a day that begins shortly may be reserved already; nothing of them may be sent before it does.
        return self.begins_at if self.begins_at > now else 0

    def left(self, now: int) -> int:
        """Units that are neither reserved nor committed."""
        self._turn_page(now)
        return max(0, self.maximum - self.used)

    def reserve(self, now: int) -> None:
        """A send is decided."""
        self._turn_page(now)
        self.used += 1
        self.flying += 1

    def reserve_flying(self, flying: int) -> None:
        """Count the sends that were under way when this quota was made."""
        self.used += flying
        self.flying = flying

    def settle(self, *, spent: bool) -> None:
        """The send ended: its unit is committed, or released when the provider did not take it."""
        self.flying -= 1
        if not spent:
            self.used = max(0, self.used - 1)

    def restore(self, used: int, now: int) -> None:
        """Start with what the journal says was committed in the current period."""
        self._turn_page(now)
        self.used = used + self.flying

    def _turn_page(self, now: int) -> None:
        if now >= self.resets_at:
            self.begins_at, self.resets_at = period_bounds(now, self.period, self.zone)
            self.used = self.flying
