"""What the witness wrote down, and the questions that can be put to it. Knows nothing of Paceline."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TAKEN = frozenset({"ok", "hang", "cut"})
"""Answers with which the witness has the message, whether or not its sender ever learns of it."""

Limit = tuple[int, float]
"""At most so many in any window of so many seconds."""


class Arrival(NamedTuple):
    """One line of the ledger: a request that the witness has read to its end."""

    monotonic: int
    wall: int
    sender: str
    to: str
    text: str
    key: str
    answer: str
    began: int

    @property
    def taken(self) -> bool:
        return self.answer in TAKEN


def read_ledger(path: Path) -> list[Arrival]:
    """All arrivals, in the order in which they were written."""
    with path.open("rb") as file:
        return [Arrival(*json.loads(line)) for line in file]


def taken_by_text(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.taken:
            found[arrival.text].append(arrival)
    return found


def by_sender(arrivals: Iterable[Arrival]) -> dict[str, list[int]]:
    """The moments of every sender's arrivals in monotonic nanoseconds, sorted."""
    found: dict[str, list[int]] = defaultdict(list)
    for arrival in arrivals:
        found[arrival.sender].append(arrival.monotonic)
    return {sender: sorted(moments) for sender, moments in found.items()}


def worst_count(moments: Sequence[int], seconds: float) -> int:
    """The most moments in any window of this length (its end excluded), wherever it starts."""
    span, first, worst = round(seconds * 1e9), 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - span:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def exceeded(moments: Sequence[int], limit: Limit) -> int:
    """How many arrivals came too early for the limit."""
    most, seconds = limit
    span = round(seconds * 1e9)
    return sum(later - earlier < span for earlier, later in zip(moments, moments[most:], strict=False))


def ideal_count(limits: Sequence[Limit], seconds: float) -> int:
    """How many a sender that never loses a moment could have sent in so many seconds from its first one on."""
    starts: list[float] = []
    while True:
        following = max((starts[-most] + span for most, span in limits if len(starts) >= most), default=0.0)
        if following > seconds:
            return len(starts)
        starts.append(following)


def summary(arrivals: Sequence[Arrival], limits: Sequence[Limit]) -> dict[str, Any]:
    """The figures of one run for people and for tests."""
    senders = by_sender(arrivals)
    taken = taken_by_text(arrivals)
    return {
        "arrived": len(arrivals),
        "taken": len(taken),
        "twice": sum(len(each) > 1 for each in taken.values()),
        "worst": {
            f"{n}/{s:g}s": max((worst_count(m, s) for m in senders.values()), default=0) for n, s in limits
        },
        "exceeded": sum(exceeded(m, limit) for m in senders.values() for limit in limits),
    }
