"""Moments that a wall clock showed twice, because it was set back while nobody was running.

What a journal says of such moments is in no certain order: nothing is called broken that may come from that alone.
"""

from collections.abc import Iterable

import msgspec

from paceline.stores.base import Document

KIND = "clock-step"
"""The documents in which the recovery keeps the steps that it found."""


LIVE = "clock-live"
"""The documents in which a running server keeps that it found the wall clock set."""
NOTICED_MS = 5000
"""A step is noticed so soon."""


class Steps:
    """The known steps back of the wall clock."""

    def __init__(self, documents: Iterable[Document], live: Iterable[Document] = ()) -> None:
        """Each document is one step: stored at the new time, in its body by how many `ms` the clock was moved.

        Those of `live` were made while a server ran; they tell how far the wall clock was ahead of its times.
        """
        self.twice = [(at, at - ms) for at, ms in map(_read, documents) if ms < 0]
        self._behind = [(at, -ms) for at, ms in map(_read, live) if ms < 0]

    def behind(self, moment: int) -> int:
        """How many milliseconds the wall clock may have been behind a journal's time, at most."""
        return max((ms for at, ms in self._behind if at - NOTICED_MS <= moment), default=0)

    def unsure(self, low: int, high: int) -> bool:
        """Whether any moment from `low` to `high` was shown twice."""
        return any(first <= high and low <= last for first, last in self.twice)


def _read(document: Document) -> tuple[int, int]:
    return document.updated_at, int(msgspec.json.decode(document.body)["ms"])


def live_document(now: int, ahead: int) -> Document:
    """The row that keeps that the wall clock is `ahead` of a running server's clock, found at `now`."""
    return Document(LIVE, "", str(now), msgspec.json.encode({"ms": ahead}).decode(), now)


def step_document(now: int, ms: int) -> Document:
    """The row that keeps a step by `ms`, found at `now`."""
    return Document(KIND, "", str(now), msgspec.json.encode({"ms": ms}).decode(), now)
