"""Nodes that take and give back places of wide limits. Not tests."""

from collections.abc import Sequence

from paceline.model.messages import HandedOver, NewMessage
from paceline.model.wide import Need, Wide
from paceline.stores.nodes import Handed
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import NOW, mark, settlement

ALL = Wide("limit/all", 3, 1000)
EACH = Wide("limit/each", 1, 5000, recipient="*")
EVERYTHING = 1 << 40
"""The caller has heard of every refusal."""
CALLS = Wide("queue/chat", 2, 0, queue="chat")
OF_ALL: Need = ("limit/all", "")


def sized(wide: Wide, maximum: int) -> Wide:
    return Wide(wide.name, maximum, wide.span_ms, recipient=wide.recipient, queue=wide.queue)


class Node:
    """A node with what it knows of the limits."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store

    async def take(
        self, rows: Sequence[NewMessage], needs: Sequence[Need] = (OF_ALL,), now: int = NOW, apart: int = 0
    ) -> Handed:
        revision, _ = await self.store.nodes.wide()
        marks = [mark(row, started=now) for row in rows]
        return await self.store.nodes.hand_over(
            marks, [list(needs)] * len(rows), revision, now, apart, EVERYTHING
        )

    async def end(
        self, given: Sequence[HandedOver], at: int, outcome: str = "Accepted", event: str = "accept"
    ) -> None:
        rows = [settlement(each, event, finished=at, outcome=outcome) for each in given]
        assert await self.store.settle(rows, [], [], [], at) == []
