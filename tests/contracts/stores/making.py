"""Rows for the tests of stores, and a machine that moves messages about at random and keeps its own books."""

import random
from collections import Counter
from itertools import count
from typing import Any

import msgspec

from paceline.model.messages import FlowKey, HandedOver, Mark, NewMessage, Revision, Settlement
from paceline.model.states import TRANSITIONS, Event, State
from paceline.stores.base import Filter, Store, StoredMessage

NOW = 1_750_000_000_000
FLOW = FlowKey("acme/chat/main", "acme", "", "chat", 5, "")
OTHER_FLOW = FlowKey("acme/chat/main", "acme", "spring", "chat", 5, "")
EVERYTHING = Filter(created_from=0)
"""A filter that a store can only answer by visiting the messages, not from its counts."""

_ids = count(1)


def message(flow: FlowKey = FLOW, **changes: Any) -> NewMessage:
    """A pending message with an id of its own."""
    row = NewMessage(
        id=next(_ids), flow=flow.number, state=State.PENDING, due_at=NOW, turn=0, created_at=NOW, expires_at=None,
        tenant=flow.tenant, queue=flow.queue, channel="chat", account=flow.account, pool="main",
        recipient="ann@example.com", priority=flow.priority, max_attempts=3, timeout_ms=30_000,
        content='{"text":"hi"}', trace_id="abc", campaign=flow.campaign or None,
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


def mark(row: NewMessage, account: str = "acme/bot", started: int = NOW + 5) -> Mark:
    """A hand-over of the message."""
    return Mark(row.id, row.flow, account, started)


_LEADS_TO = {
    "accept": State.COMPLETED, "retry": State.RETRYING, "give-back": State.PENDING, "refuse": State.FAILED,
    "lose": State.UNCERTAIN, "expire": State.EXPIRED,
}  # fmt: skip


def settlement(given: HandedOver, event: str = "accept", **changes: Any) -> Settlement:
    """How that hand-over ended: ten milliseconds after it began."""
    made = Settlement(
        id=given.id, number=given.number, event=event, state=_LEADS_TO[event], due_at=given.due_at,
        turn=given.turn, attempts=given.attempts + 1, started=NOW + 10, finished=NOW + 20, outcome="Accepted",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def revision(was: StoredMessage, event: str, to: int | None, **changes: Any) -> Revision:
    """A person's change of a message as it was seen."""
    made = Revision(
        id=was.id, number=was.number, from_state=was.state, to_state=to, event=event, due_at=was.due_at,
        turn=was.turn, expires_at=was.expires_at, priority=was.priority, flow=was.flow, account=was.account,
        pool=was.pool, attempts=was.attempts,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


async def one(store: Store, number: int) -> StoredMessage:
    """The message with this id."""
    (found,) = await store.get([number])
    return found


async def sent(store: Store, row: NewMessage, event: str = "accept", **changes: Any) -> HandedOver:
    """Hand the stored message over and settle it."""
    (given,) = await store.hand_over([mark(row)], NOW + 5)
    assert await store.settle([settlement(given, event, **changes)], [], [], [], NOW + 20) == []
    return given


async def tallied(store: Store) -> Counter[tuple[int, str, int]]:
    """The store's counts by flow, sender and state."""
    lines = await store.tallies()
    assert all(line.count > 0 for line in lines)
    counts = Counter({(line.flow, line.sender, line.state): line.count for line in lines})
    assert len(counts) == len(lines)
    return counts


async def recounted(store: Store) -> Counter[tuple[int, str, int]]:
    """The same counts by looking at every message."""
    return Counter([(m.flow, m.sender, m.state) async for page in store.export(EVERYTHING) for m in page])


class Machine:
    """Does one random thing after the other to a store, often with rows that no longer fit."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.now = NOW
        urgent = FlowKey(FLOW.lane, FLOW.tenant, "", FLOW.queue, 9, "")
        self.flows = [FLOW, urgent, OTHER_FLOW, FlowKey("b/sms/x", "b", "", "sms", 9, "b/s")]
        self.rows: dict[int, NewMessage] = {}
        self.given: list[HandedOver] = []

    async def step(self) -> None:
        """One thing, of those that change something."""
        self.now += self.random.randrange(1000)
        act = self.random.choice([self.add, self.hand_over, self.settle, self.revise, self.promote, self.expire,
                                  self.clean, self.hand_over, self.settle])  # fmt: skip
        await act()

    async def add(self) -> None:
        rows = []
        for _ in range(self.random.randrange(8)):
            state = self.random.choice([State.PENDING, State.SCHEDULED])
            expires = self.random.choice([None, self.now + 2000])
            key = self.random.choice([None, None, f"k{self.random.randrange(30)}"])
            rows.append(message(self.random.choice(self.flows), state=state, due_at=self.now + 500,
                                expires_at=expires, turn=self.random.randrange(3), idempotency_key=key))  # fmt: skip
        self.rows |= {row.id: row for row in rows}
        await self.store.add(rows, self.flows, self.now)

    async def hand_over(self) -> None:
        rows = self.some(list(self.rows.values()))
        marks = [mark(row, self.random.choice(["x/1", "x/2"]), self.now) for row in rows]
        self.given += await self.store.hand_over(marks, self.now)

    async def settle(self) -> None:
        rows = []
        for given in self.some(self.given):
            event, state = self.random.choice(list(TRANSITIONS[State.PROCESSING].items()))
            due = self.now + self.random.randrange(1000)
            rows.append(settlement(given, event.value, state=state, due_at=due, finished=self.now))
        await self.store.settle(rows, [], [], [], self.now)

    async def revise(self) -> None:
        changes = []
        for was in self.some(await self.store.find(EVERYTHING, None, 1000)):
            arrows = [a for a in TRANSITIONS[State(was.state)].items() if a[0] in _PEOPLE]
            event, state = self.random.choice(arrows) if arrows else (Event.RESCHEDULE, None)
            like = [f for f in self.flows if (f.tenant, f.campaign) == (was.tenant, was.campaign or "")]
            flow = self.random.choice(like)
            to = self.random.choice([state, state, was.state])
            name = "" if to == was.state else event.value
            changes.append(revision(was, name, to, flow=flow.number, priority=flow.priority))
        await self.store.revise(changes, self.now)

    async def promote(self) -> None:
        await self.store.promote(self.now, self.random.randrange(1, 20))

    async def expire(self) -> None:
        await self.store.expire(self.now, self.random.randrange(1, 20))

    async def clean(self) -> None:
        await self.store.clean(Filter(), self.now - 3000, None, self.random.randrange(1, 5))

    def some(self, things: list[Any]) -> list[Any]:
        """A few of them, the same one twice now and then."""
        return [self.random.choice(things) for _ in range(self.random.randrange(6))] if things else []


_PEOPLE = {Event.RESCHEDULE, Event.REVIVE, Event.CANCEL, Event.CONFIRM, Event.DENY}
