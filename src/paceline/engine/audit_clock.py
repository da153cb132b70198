"""Moments that a wall clock showed twice, because it was set back while nobody was running.

What a journal says of such moments is in no certain order: nothing is called broken that may come from that alone.
"""

from collections.abc import Iterable

import msgspec

from paceline.stores.base import Document

KIND = "clock-step"
"""The documents in which the recovery keeps the steps that it found."""


class Steps:
    """The known steps back of the wall clock."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Each document is one step: stored at the new time, in its body by how many `ms` the clock was moved."""
        moved = [
            (document.updated_at, int(msgspec.json.decode(document.body)["ms"])) for document in documents
        ]
        self.twice = [(at, at - ms) for at, ms in moved if ms < 0]

    def unsure(self, low: int, high: int) -> bool:
        """Whether any moment from `low` to `high` was shown twice."""
        return any(first <= high and low <= last for first, last in self.twice)


def step_document(now: int, ms: int) -> Document:
    """The row that keeps a step by `ms`, found at `now`."""
    return Document(KIND, "", str(now), msgspec.json.encode({"ms": ms}).decode(), now)
