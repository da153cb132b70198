"""Whether messages of a flow were handed over first in, first out.

Judged are first hand-overs of messages whose place never changed: due when they were taken in, not rescheduled,
not retried. One is overtaken if a later one of its flow was handed over before it, at a moment when it had surely
been in line. Where messages may stand aside for their own recipient or group, others may pass them: flows under a
limit of recipients or groups, and accounts that a provider has told to wait, are not judged.

A person who moves a waiting message to another priority or account leaves no trace in the journal, nor does a
limit that was removed: who did such a thing has to say so (`reordered`), and then overtaking is only counted.
"""

from collections.abc import Callable

import msgspec

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_report import Check
from paceline.model.ids import to_text
from paceline.model.journal import Standing
from paceline.stores.base import Attempt

IN_LINE_MS = 1000
"""So long after it was taken in a message is surely in line."""


class _Latest(msgspec.Struct, gc=False):
    """The one among the messages of a flow so far that was handed over last."""

    handed: int
    id: int
    created: int
    overtaken: bool = False


class FlowOrder:
    """First hand-overs by id, of all flows mixed. Memory grows with the number of flows."""

    def __init__(
        self, passes: Callable[[int], bool], told_to_wait: frozenset[str], steps: Steps, *, reordered: bool
    ) -> None:
        """`passes` tells whether messages of a flow may be passed by others, `told_to_wait` names accounts."""
        self.check = Check("order", "within a flow, first come is first handed over")
        self._passes, self._told, self._steps, self._reordered = passes, told_to_wait, steps, reordered
        self._flows: dict[int, _Latest | None] = {}

    def first(self, standing: Standing, line: Attempt) -> None:
        """The first hand-over of the next message."""
        flow, created = line.flow, standing.created_at
        if created is None or standing.turn != created or standing.flow != flow:
            self.check.looked["messages whose place was changed"] += 1
            return
        if flow not in self._flows:
            self._flows[flow] = (
                None if self._passes(flow) else _Latest(line.handed_over, standing.id, created)
            )
            self.check.looked["flows"] += 1
        latest = self._flows[flow]
        if latest is None or line.account in self._told:
            self.check.looked["messages that others may pass"] += 1
            return
        self.check.looked["first hand-overs"] += 1
        if line.handed_over >= latest.handed:
            self._flows[flow] = _Latest(line.handed_over, standing.id, created)
        elif (
            latest.created + IN_LINE_MS <= line.handed_over
            and latest.created <= created
            and not latest.overtaken
        ):
            latest.overtaken = True
            self._overtaken(latest, standing, line)

    def _overtaken(self, latest: _Latest, standing: Standing, line: Attempt) -> None:
        if self._steps.unsure(latest.created, latest.handed):
            return
        if self._reordered:
            self.check.looked["messages that were overtaken"] += 1
            return
        self.check.fault(
            f"was overtaken by {to_text(standing.id)} of its flow, which was handed over "
            f"{latest.handed - line.handed_over:,} ms earlier",
            (latest.id, standing.id), line.handed_over,
        )  # fmt: skip
