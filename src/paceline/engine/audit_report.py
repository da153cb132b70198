"""What an audit answers: named checks, each with what it looked at and what it found broken."""

from collections import Counter
from collections.abc import Sequence

import msgspec

MOST = 20
"""Findings that a check lists; the others are only counted."""


class Finding(msgspec.Struct, frozen=True):
    """One broken promise: in words, with the messages it is about and the moment (ms since 1970)."""

    what: str
    messages: tuple[int, ...] = ()
    at: int | None = None
    limit: str = ""


class Check:
    """One promise that is checked. `notes` say what was left out, and why."""

    def __init__(self, name: str, promise: str) -> None:
        """Nothing looked at, nothing found."""
        self.name, self.promise = name, promise
        self.looked: Counter[str] = Counter()
        self.broken = 0
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def fault(self, what: str, messages: Sequence[int] = (), at: int | None = None, limit: str = "") -> None:
        """Something is broken."""
        self.broken += 1
        if len(self.findings) < MOST:
            self.findings.append(Finding(what, tuple(messages), at, limit))


class LimitFigures(msgspec.Struct):
    """What became of one limit: of an account, or a wide one.

    `places` is the most that were occupied at once, `arrivals` the most sends that surely arrived within one
    window; neither may be more than `maximum`. `before` counts the sends from before the limit was set.
    `key` names the recipient or group of the worst, for a limit that counts each one apart.
    """

    scope: str
    limit: str
    maximum: int
    sends: int = 0
    before: int = 0
    places: int = 0
    arrivals: int = 0
    broken: int = 0
    key: str = ""


class Report(msgspec.Struct):
    """The whole answer. `sizes` is how much there was to look at."""

    sizes: dict[str, int]
    checks: list[Check]
    limits: list[LimitFigures]

    @property
    def clean(self) -> bool:
        """Nothing is broken."""
        return not any(check.broken for check in self.checks)
