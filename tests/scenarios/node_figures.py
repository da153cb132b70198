"""What storms of nodes and of their database find, and which promises were broken by it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scenarios.figures_of import percentile
from tests.scenarios.ledger import Limit

LIMIT: Limit = (5, 2.0)
"""Of each account."""
LEASE_S = 2.0


@dataclass
class Figures:
    """What came out; `broken` names every promise that was."""

    kills: int = 0
    stops: int = 0
    restarts: int = 0
    cuts: int = 0
    ends: int = 0
    acknowledged: int = 0
    attempted: int = 0
    taken: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    doubled_keys: list[str] = field(default_factory=list)
    false_endings: list[str] = field(default_factory=list)
    uncertain: int = 0
    exceeded: int = 0
    worst: int = 0
    wide_exceeded: int = 0
    wide_worst: int = 0
    two_hands: int = 0
    states: dict[str, int] = field(default_factory=dict)
    follows: list[float] = field(default_factory=list)
    slow_follows: int = 0
    refused_late: int = 0
    audit: list[str] = field(default_factory=list)
    use: float = 0.0
    recoveries: list[float] = field(default_factory=list)
    pickups: list[float] = field(default_factory=list)
    unanswered: int = 0
    refused: int = 0
    without_retry: int = 0

    @property
    def faults(self) -> int:
        """How many there were, of all kinds."""
        return self.kills + self.stops + self.restarts + self.cuts

    @staticmethod
    def slowest(seconds: Sequence[float]) -> float:
        """The 99th of 100."""
        return percentile(seconds, 0.99)

    @property
    def broken(self) -> list[str]:
        promises: dict[str, Sequence[Any]] = {
            "lost": self.lost,
            "sent twice": self.twice,
            "never sent by a client": self.foreign,
            "one idempotency key, two messages": self.doubled_keys,
            "said to be sent, not in the ledger": self.false_endings,
            "arrivals beyond the limit": ["arrival"] * self.exceeded,
            "arrivals beyond the limit of everything": ["arrival"] * self.wide_exceeded,
            "two calls of one message at once": ["call"] * self.two_hands,
            "broken as the audit of the store says": self.audit,
            f"follows later than the lease and 2 s ({LEASE_S + 2:g} s)": ["follow"] * self.slow_follows,
        }
        return [f"{name}: {len(found)}, such as {found[:3]}" for name, found in promises.items() if found]

    def lines(self) -> list[str]:
        follows = sorted(self.follows) or [0.0]
        return [
            f"nodes killed, stopped      {self.kills}, {self.stops}; ended by the others: {self.ends}",
            f"acknowledged               {self.acknowledged} of {self.attempted} attempted",
            f"taken by the provider      {self.taken}",
            f"lost                       {len(self.lost)}",
            f"sent twice without a word  {len(self.twice)}",
            f"doubled by a repeated key  {len(self.doubled_keys)}",
            f"most in a window           {self.worst} of {LIMIT[0]}, beyond it: {self.exceeded}",
            f"most of everything         {self.wide_worst}, beyond its limit: {self.wide_exceeded}",
            f"two calls at once          {self.two_hands}",
            f"uncertain                  {self.uncertain}",
            f"followed after             median {statistics.median(follows):.2f} s, most {follows[-1]:.2f} s",
            f"late endings refused       {self.refused_late}",
            f"states at the end          {self.states}",
        ]
