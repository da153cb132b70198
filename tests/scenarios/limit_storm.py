"""One account that four nodes follow each other at, while its limit is lowered and raised: never more than the limit lets go.

A change holds within a second of its answer. So a window may hold as many arrivals as the highest limit that was in force
in it, or in the second before.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.scenarios.full_storm import Feeder
from tests.scenarios.node_storm import Client, NodeStorm
from tests.scenarios.server import until

SPAN_S = 2.0
MOST = (20, 10, 5, 15)
"""What the account is limited to in turn, in `SPAN_S`."""
DELAY_S = 1.0
NODES = 4

Change = tuple[float, int]
"""When a limit was acknowledged, and how many it lets go."""


class _Eager(Feeder):
    rate = max(MOST) / SPAN_S


class LimitStorm(NodeStorm):
    """Faults of nodes and changes of the limit in turn."""

    def __init__(self, folder: Path, store: str, seed: int, **more: Any) -> None:
        super().__init__(folder, store, seed, **{"accounts": 1, **more})
        self.changes: list[Change] = [(0.0, MOST[0])]

    def _clients(self) -> Sequence[Client]:
        self._change(MOST[0])
        return [_Eager(self, 0)]

    def _fault(self) -> None:
        super()._fault()
        self._change(MOST[len(self.changes) % len(MOST)])
        time.sleep(self.chance.uniform(0, 2 * SPAN_S))

    def _change(self, most: int) -> None:
        raised = most > self.changes[-1][1]
        if raised:  # it may hold before the answer is here
            self.changes.append((time.monotonic(), most))
        until(lambda: self._changed(most), "some node takes the change")
        if not raised:
            self.changes.append((time.monotonic(), most))

    def _changed(self, most: int) -> bool:
        """Ask any node; one that has just come back may refuse."""
        settings = {"token": "1000:secret", "base_url": f"http://127.0.0.1:{self.witness.port}"}
        wanted = {"limits": [f"{most}/{SPAN_S:g}s"], "concurrency": 5, "pool": "p0"}
        reply = self.chance.choice(self.nodes).ask(
            "PUT", "/api/v1/accounts/a0", {"channel": "telegram-bot", "settings": settings, **wanted}
        )
        assert reply.status in {200, 201, 503}, (reply.status, reply.body)
        return reply.status != 503

    def _judge_limits(self, senders: dict[str, list[int]]) -> None:
        self.figures.exceeded = sum(beyond(moments, self.changes) for moments in senders.values())


def beyond(moments: Sequence[int], changes: Sequence[Change]) -> int:
    """How many arrivals were too many for every limit that was in force in their window or shortly before."""
    span, first, found = round(SPAN_S * 1e9), 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - span:
            first += 1
        found += last - first + 1 > most_allowed((moment - span) / 1e9 - DELAY_S, moment / 1e9, changes)
    return found


def most_allowed(begin: float, end: float, changes: Sequence[Change]) -> int:
    """The highest limit in force between the two moments, in seconds."""
    in_force = [most for (at, most), following in zip(changes, [*changes[1:], (float("inf"), 0)], strict=True)
                if at <= end and following[0] > begin]  # fmt: skip
    return max(in_force)
