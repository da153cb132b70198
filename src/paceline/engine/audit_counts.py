"""Whether what is counted along the way equals what is there: counts by flow and state, figures of days."""

from collections.abc import Iterable

from paceline.engine.audit_report import Check
from paceline.model.journal import Counted, DayFigures
from paceline.model.states import State

DAY_MS = 86_400_000


class Counts:
    """Kept counts beside real ones."""

    def __init__(self) -> None:
        """None seen."""
        self.check = Check("counts", "the counts of messages by flow, account and state are exact")

    def feed(self, page: Iterable[Counted]) -> None:
        """The next counts."""
        for row in page:
            self.check.looked["counts"] += 1
            self.check.looked["messages"] += row.there
            if row.kept != row.there:
                state = State(row.state).label if row.state in set(State) else f"state {row.state}"
                who = f" last sent by {row.sender}" if row.sender else ""
                self.check.fault(
                    f"flow {row.flow}: {row.kept:,} messages are counted as {state}{who}, there are {row.there:,}"
                )


class Days:
    """Kept figures of days beside the journal's.

    A line tells its outcome, not what followed from it: a temporary failure was a retry or the last one. So
    completed messages are compared exactly, and of the rest the sum. Where the journal was cleaned the figures
    may only be greater than what is left of it.
    """

    def __init__(self, whole_from: int | None, since: int) -> None:
        """`whole_from` is the moment from which no line is missing; days that begin before `since` are left out."""
        self.check = Check("days", "the figures of each day are those of the journal")
        self._whole = None if whole_from is None else -(-whole_from // DAY_MS)
        self._first = -(-since // DAY_MS)

    def feed(self, page: Iterable[DayFigures]) -> None:
        """The next days, queues and accounts."""
        for row in page:
            if row.day < self._first:
                continue
            whole = self._whole is not None and row.day >= self._whole
            self.check.looked["figures"] += 1
            self.check.looked["figures of whole days"] += whole
            for what, kept, least, most in (
                ("completed", row.completed, row.accepted + row.confirmed, row.accepted + row.confirmed),
                ("failed", row.failed, row.refused + row.denied, row.refused + row.denied + row.open_),
                ("failed or tried again", row.failed + row.retries, row.refused + row.denied,
                 row.refused + row.denied + row.open_),
                ("milliseconds of sending", row.send_ms, row.sure_ms, row.most_ms),
            ):  # fmt: skip
                if kept < least or (whole and kept > most):
                    there = f"{least:,}" if least == most else f"{least:,} to {most:,}"
                    self.check.fault(
                        f"queue {row.queue}, account {row.account or 'none'}, tenant {row.tenant}: {kept:,} {what}, "
                        f"by the journal {there}",
                        at=row.day * DAY_MS,
                    )
                    break
