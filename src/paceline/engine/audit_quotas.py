"""Whether a calendar day or month ever held more sends than its quota.

A unit is reserved when a send is decided and kept when the provider took the message or may have. A call under way
when the period ends counts for both, so that neither can be exceeded: the ledger of a period sums up to the sends
whose calls touch it.
"""

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_report import Check, LimitFigures
from paceline.model.accounts import QuotaSpec
from paceline.model.journal import Sent
from paceline.pacing.quotas import Quota, period_bounds

SPENT = frozenset({"Accepted", "Unknown"})
"""Outcomes that use up a unit."""
SETTLING_MS = 2000
"""A change holds for what is handed over so long after it: it is stored first and comes into force then."""


def quotas_of(spec: QuotaSpec | None) -> list[Quota]:
    """The quotas that are set."""
    if spec is None:
        return []
    day = [Quota(spec.day, "day", spec.zone)] if spec.day is not None else []
    return day + ([Quota(spec.month, "month", spec.zone)] if spec.month is not None else [])


class QuotaWatch:
    """One quota of one account, held against its sends in the order of their starts."""

    def __init__(
        self, check: Check, figures: list[LimitFigures], account: str, quota: Quota, changed: int, since: int
    ) -> None:
        """`changed` is when it was set; what was handed over before that, or before `since`, is not judged."""
        self._check, self._quota = check, quota
        self._changed, self._holds_from, self._since = changed, changed, since
        text = f"{quota.maximum}/{quota.period} in {quota.zone}"
        self._figures = LimitFigures(f"account {account}", text, quota.maximum)
        figures.append(self._figures)
        self._touching: dict[int, int] = {}  # sends by the first moment of the period
        self._inside: dict[int, int] = {}
        self._bounds = (0, 0)

    def add(self, sent: Sent, steps: Steps) -> None:
        """A send of the account."""
        if sent.handed_over < self._changed:
            self._holds_from = self._changed + SETTLING_MS
        if sent.outcome not in SPENT:
            return
        self._check.looked["sends"] += 1
        first, last = self._period(sent.handed_over), self._period(sent.finished)
        judged = sent.handed_over >= max(self._holds_from, self._since)
        figures = self._figures
        figures.sends += judged
        figures.before += sent.handed_over < self._holds_from
        for period in {first, last}:
            count = self._touching[period] = self._touching.get(period, 0) + 1
            if not judged:
                continue
            figures.places = max(figures.places, count)
            if count > figures.maximum and not steps.unsure(sent.handed_over, sent.finished):
                figures.broken += 1
                self._check.fault(
                    f"{figures.scope}: {count:,} sends in one {self._quota.period}", (sent.message,), sent.started,
                    figures.limit,
                )  # fmt: skip
        if first == last:
            inside = self._inside[first] = self._inside.get(first, 0) + 1
            if judged:
                figures.arrivals = max(figures.arrivals, inside)

    def _period(self, moment: int) -> int:
        """The first moment of the period of a moment; mostly the same as for the moment before it."""
        if not self._bounds[0] <= moment < self._bounds[1]:
            self._bounds = period_bounds(moment, self._quota.period, self._quota.zone)
        return self._bounds[0]
