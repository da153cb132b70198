"""The storm of nodes with every account supplied all the time: so what is not sent is a loss, and can be counted.

An account is away from the moment its node is harmed until another one follows, and for one window more: what was under
way then holds its place that long. Outside of that it has to make use of its limit.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from tests.contracts.stores.postgres_server import in_thread
from tests.scenarios.ledger import Limit, by_sender
from tests.scenarios.node_figures import LIMIT
from tests.scenarios.node_storm import Client, Node, NodeStorm
from tests.scenarios.server import NotAnsweredError, text_body

ACCOUNTS = 200
AHEAD_S = 10.0
"""So much of each account's limit is stored before the storm begins."""
EVERY_S = 0.5
SETTLED_S = LIMIT[1] + 0.5
_FIRST = 1000
"""The number of the first account's sender."""

Span = tuple[float, float]


class Feeder(Client):
    """Stores as much as the limits let go, in batches that are sent again, to any node, until somebody says 'yes'."""

    rate = LIMIT[0] / LIMIT[1]
    """Messages a second for each account."""

    def _work(self) -> None:
        try:
            batch = self._batch(AHEAD_S)
            begun = time.monotonic()
            while not self.storm.over.is_set():
                if self._stored(batch):
                    self.storm.over.wait(EVERY_S)
                    batch = self._batch(time.monotonic() - begun)
                    begun = time.monotonic()
        except BaseException as error:
            self.failure = error

    def _batch(self, seconds: float) -> list[dict[str, Any]]:
        """For every account what it may send in so many seconds."""
        first = len(self.attempted)
        count = round(self.storm.accounts * seconds * self.rate)
        texts = [f"{self.number}-{first + place}" for place in range(count)]
        self.attempted.update(texts)
        return [
            text_body(f"a{(first + place) % self.storm.accounts}", text, idempotency_key=text)
            for place, text in enumerate(texts)
        ]

    def _stored(self, batch: Sequence[dict[str, Any]]) -> bool:
        node = self.chance.choice(self.storm.nodes)
        if node.stopped or node.process is None or not node.process.port:
            return False
        try:
            with node.line(timeout=self.storm.patience) as line:
                reply = line.ask("POST", "/api/v1/messages/batch", {"messages": batch})
        except NotAnsweredError:
            return False
        if reply.status == 503:
            self.storm.over.wait(0.05)
            return False
        assert reply.status == 202 and not reply.json["rejected"], (reply.status, reply.body[:300])
        for each in reply.json["accepted"]:
            self.acknowledged[str(batch[each["index"]]["text"])] = each["id"]
        return True


class FullStorm(NodeStorm):
    """Many accounts, all of them at their limits."""

    def __init__(self, folder: Path, store: str, seed: int, **more: Any) -> None:
        super().__init__(folder, store, seed, **{"accounts": ACCOUNTS, **more})
        self.away: dict[str, list[Span]] = defaultdict(list)
        self.began = 0.0
        self.ended = 0.0

    def _clients(self) -> Sequence[Client]:
        usual = super()._clients()
        self.began = time.monotonic()
        return [*usual, Feeder(self, len(usual))]

    def _harm(self, victims: Sequence[Node]) -> None:
        ids = [node.id for node in victims]
        owned = in_thread(lambda: _senders_of(self.store, ids))
        begun, follows = time.monotonic(), len(self.figures.follows)
        super()._harm(victims)
        followed = self.figures.follows[follows:]
        over = (begun + followed[0] if followed else time.monotonic()) + SETTLED_S
        for sender in owned:
            self.away[sender].append((begun, over))
        self.ended = time.monotonic()

    def _judge(self) -> None:
        super()._judge()
        senders = by_sender(self.witness.arrivals())
        calm = {sender: gaps(self.away[sender], self.began + SETTLED_S, self.ended) for sender in senders}
        self.figures.use = use_of(senders, calm, LIMIT)


def gaps(spans: Sequence[Span], begin: float, end: float) -> list[Span]:
    """What lies between the spans, from `begin` to `end`."""
    found, at = [], begin
    for first, last in sorted(spans):
        if first > at:
            found.append((at, min(first, end)))
        at = max(at, last)
    if at < end:
        found.append((at, end))
    return [(first, last) for first, last in found if last > first]


def use_of(senders: dict[str, list[int]], calm: dict[str, list[Span]], limit: Limit) -> float:
    """What arrived in calm times, of what the limit lets go in them if calls took no time."""
    arrived = permitted = 0.0
    for sender, spans in calm.items():
        moments = senders[sender]
        for first, last in spans:
            arrived += bisect_left(moments, last * 1e9) - bisect_left(moments, first * 1e9)
            permitted += (last - first) * limit[0] / limit[1]
    return arrived / permitted if permitted else 0.0


async def _senders_of(url: str, nodes: Sequence[str]) -> list[str]:
    """The senders whose lanes these nodes own, as the database knows it."""
    base, _, query = url.partition("?schema=")
    connection = await asyncpg.connect(base, timeout=10)
    try:
        schema = query or "paceline"
        rows = await connection.fetch(
            f"SELECT DISTINCT lane FROM {schema}.flow JOIN {schema}.partition ON partition.number = (flow.number & 63) "
            "WHERE owner = ANY($1)", list(nodes),
        )  # fmt: skip
    finally:
        await connection.close()
    return [
        str(_FIRST + int(lane.rpartition("p")[2])) for (lane,) in rows if lane.rpartition("p")[2].isdigit()
    ]
