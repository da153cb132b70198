"""What the engine asks of a store that several nodes share: see `stores.nodes.NodeStore`."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from paceline.clock import passed_ms
from paceline.model.errors import UnavailableError
from paceline.model.messages import FlowKey, HandedOver, Mark
from paceline.model.nodes import EVERY_PARTITION, Known, Node, Roll, Standing, Wake
from paceline.model.wide import Need, Use, Wide
from paceline.stores import postgres_wide
from paceline.stores.base import Document, FlowState
from paceline.stores.calls import HandOver, Kind
from paceline.stores.nodes import Changed, Handed
from paceline.stores.postgres_lease import Lease
from paceline.stores.postgres_node import Membership, end, living
from paceline.stores.postgres_reader import flow_states
from paceline.stores.postgres_session import Session
from paceline.stores.postgres_signals import NEWS, Signals

if TYPE_CHECKING:
    from paceline.stores.postgres import PostgresStore


class PostgresNodes:
    """A `NodeStore` of one schema; it lives from each joining to the next."""

    def __init__(self, store: "PostgresStore") -> None:
        """Not joined yet."""
        self._store = store
        self._now: Callable[[], float] | None = None
        self._ring: Callable[[], None] = lambda: None
        self._member: Membership | None = None
        self._lease: Lease | None = None
        self._signals: Signals | None = None
        self._own_revisions: set[int] = set()
        self._cleaner = postgres_wide.Cleaner()

    # For the store

    def joined(self, member: Membership, begun_ms: float) -> None:
        """The store has joined as `member`, no earlier than `begun_ms`: hold the lease, listen and tell."""
        loop = asyncio.get_running_loop()
        self._member = member
        self._own_revisions.clear()
        self._lease = Lease(
            self._store.address, member.id, member.lease_ms,
            partial(self._ask_loop, loop, member), begun_ms,
        )  # fmt: skip
        self._lease.now = self._now
        self._lease.start()
        self._signals = Signals(self._store.address, member.id, self._heard)
        self._signals.tell(news=True)

    async def left(self) -> None:
        """The store leaves: no more renewals, no more words."""
        lease, signals, self._lease, self._signals = self._lease, self._signals, None, None
        if lease is not None:
            lease.stop()
        if signals is not None:
            await signals.close()
        if lease is not None:
            await asyncio.to_thread(lease.join)

    def gone(self) -> None:
        """What this node owned is free: the others may look."""
        self._tell_news()

    def told(self, partitions: int) -> None:
        """A commit left word for other nodes' partitions, a bit for each."""
        if self._signals is not None:
            self._signals.tell(partitions)

    def wrote(self, revision: int) -> None:
        """This node itself changed documents: that is no news to it."""
        self._own_revisions.add(revision)
        if self._signals is not None:
            self._signals.tell(news=True)

    def _ask_loop(self, loop: asyncio.AbstractEventLoop, member: Membership) -> None:
        """In the thread of the lease."""
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(self._ended, member)

    def _ended(self, member: Membership) -> None:
        if member is self._member:
            self._store.ended(member)
            self._ring()

    def _heard(self, word: str) -> None:
        if word == NEWS or (self._member is not None and _overlap(word, self._member.owned)):
            self._ring()

    # For the engine

    @property
    def id(self) -> str:
        """See `NodeStore.id`."""
        return self._joined.id

    @property
    def slot(self) -> int:
        """See `NodeStore.slot`."""
        return self._joined.slot

    @property
    def owned(self) -> frozenset[int]:
        """See `NodeStore.owned`."""
        return self._joined.owned

    @property
    def heard_anew(self) -> int:
        """How often the listening connection was opened again."""
        return self._signals.lost if self._signals is not None else 0

    def may_send(self) -> bool:
        """See `NodeStore.may_send`."""
        return self._lease is not None and self._lease.valid

    def watch(self, now: Callable[[], float], ring: Callable[[], None]) -> None:
        """See `NodeStore.watch`."""
        self._now, self._ring = now, ring
        if self._lease is not None:
            self._lease.now = now

    async def time_ahead(self, now: Callable[[], float]) -> float:
        """See `NodeStore.time_ahead`. The quickest of a few answers tells best."""
        found: list[tuple[float, float]] = []
        for _ in range(5):
            begun, before = passed_ms(), now()
            theirs = await self._ask(lambda session: session.value("time"))
            took = passed_ms() - begun
            found.append((took, theirs + 0.5 - before - took / 2))  # their milliseconds are rounded down
        return min(found)[1]

    async def standing(self) -> Standing:
        """See `NodeStore.standing`."""
        member = self._joined
        before, giving = member.version, member.giving

        async def look(session: Session) -> tuple[list[Node], list[Any], Any]:
            nodes = await living(session)
            owners = await session.rows("owners")
            return nodes, owners, await session.row("tidings", member.parts)

        nodes, owners, tidings = await self._ask(look)
        owner_of: tuple[str | None, ...] = tuple(owner for _, owner in owners)
        if member.version == before:  # else something was taken or given while we looked
            member.owned = frozenset(n for n, owner in enumerate(owner_of) if owner == member.id) - giving
        return Standing(
            tuple(nodes), owner_of, all(node.id != member.id for node in nodes), tidings["woken"], tidings["revision"],
            tidings["wide"],
        )  # fmt: skip

    async def end(self, node: Node) -> bool:
        """See `NodeStore.end`."""
        ended: bool = await self._ask(lambda session: end(session, node))
        if ended:
            self._tell_news()
        return ended

    async def take(self, partitions: Sequence[int]) -> list[int]:
        """See `NodeStore.take`."""
        member = self._joined
        gained: list[int] = await self._write(lambda session: member.take(session, list(partitions)))
        member.owned |= set(gained)
        member.version += 1
        return gained

    async def give(self, partitions: Sequence[int], to: str) -> list[int]:
        """See `NodeStore.give`. From the moment it is asked for others are told of what is stored there."""
        member = self._joined
        had = member.owned.intersection(partitions)
        member.owned -= had
        member.giving |= had
        member.version += 1
        given: list[int] = []
        try:
            rows = await self._write(lambda session: session.rows("give", member.id, to, sorted(had)))
            given = sorted(number for (number,) in rows)
        finally:
            member.giving -= had
            member.owned |= had.difference(given)
            member.version += 1
        self._tell_news()
        return given

    async def woken(self) -> list[Wake]:
        """See `NodeStore.woken`."""
        member = self._joined
        rows = await self._write(lambda session: session.rows("woken", member.parts))
        return [Wake(*row) for row in rows]

    async def changed(self, since: int) -> list[Changed]:
        """See `NodeStore.changed`."""
        rows = await self._ask(lambda session: session.rows("changes", since))
        own = self._own_revisions
        self._own_revisions = {revision for revision in own if revision > since}
        return [Changed(*row) for row in rows if row["revision"] not in own]

    async def hand_over(
        self,
        marks: Sequence[Mark],
        needs: Sequence[Sequence[Need]],
        revision: int,
        now: int,
        apart: int,
        heard: int = 0,
    ) -> Handed:
        """See `NodeStore.hand_over`."""
        answer: Handed = await self._store.submit(
            Kind.HAND_OVER, HandOver(marks, needs, revision, now, apart, heard), len(marks)
        )
        return answer

    async def set_wide(
        self, limits: Sequence[Wide], dropped: Sequence[str], now: int, put: Sequence[Document] = (),
        removed: tuple[str, str, str] | None = None, after: int | None = None,
    ) -> tuple[int, bool]:  # fmt: skip
        """See `NodeStore.set_wide`."""
        postgres_wide.check(limits)
        schema, wanted = (
            self._store.address.schema,
            postgres_wide.Change(limits, dropped, put, removed, after),
        )
        made: postgres_wide.Changed = await self._write(
            lambda session: postgres_wide.change(session, schema, wanted, now)
        )
        if made.revision:
            self.wrote(made.revision)
        return made.wide, made.gone

    async def wide(self) -> tuple[int, list[Wide]]:
        """See `NodeStore.wide`."""
        found: tuple[int, list[Wide]] = await self._ask(postgres_wide.known)
        return found

    async def wide_use(self, names: Sequence[str], now: int) -> dict[str, Use]:
        """See `NodeStore.wide_use`."""
        found: dict[str, Use] = await self._ask(lambda session: postgres_wide.use(session, names, now))
        return found

    async def clean_places(self, free_before: int, most: int) -> bool:
        """See `NodeStore.clean_places`."""
        idle, more = await self._ask(lambda session: self._cleaner.look(session, free_before, most))
        if idle:
            await self._write(lambda session: postgres_wide.forget(session, idle, free_before))
        return bool(more)

    async def open_calls(self, partitions: Sequence[int]) -> list[HandedOver]:
        """See `NodeStore.open_calls`."""
        return [HandedOver(*row) for row in await self._store.rows("open_calls", list(partitions))]

    async def flows(self, partitions: Sequence[int]) -> list[FlowState]:
        """See `NodeStore.flows`."""
        return flow_states(await self._store.rows("flows_of", list(partitions)))

    async def keys_of(self, flows: Sequence[int]) -> dict[int, FlowKey]:
        """See `NodeStore.keys_of`."""
        rows = await self._store.rows("keys_of", list(flows))
        return {number: FlowKey(*key) for number, *key in rows}

    async def apart(self, since_ms: int) -> int:
        """See `NodeStore.apart`."""
        apart: int | None = await self._ask(lambda session: session.value("apart", self._joined.id, since_ms))
        return apart or 0

    async def roll(self, since_ms: int) -> Roll:
        """See `NodeStore.roll`."""
        known = tuple(Known(*row) for row in await self._store.rows("roll", since_ms))
        ((free, now),) = await self._store.rows("free_partitions")
        return Roll(known, free, now)

    async def forget(self, before: int) -> int:
        """See `NodeStore.forget`."""
        gone: int = await self._write(lambda session: session.value("forget_nodes", before))
        return gone

    async def rejoin(self) -> None:
        """See `NodeStore.rejoin`."""
        await self._store.rejoin()

    @property
    def _joined(self) -> Membership:
        if self._member is None:
            raise UnavailableError("the store is not open")
        return self._member

    def _tell_news(self) -> None:
        if self._signals is not None:
            self._signals.tell(news=True)

    async def _ask(self, act: Callable[[Session], Any]) -> Any:
        if self._signals is None:
            raise UnavailableError("the store is not open")
        return await self._signals.ask(act)

    async def _write(self, work: Callable[[Session], Any]) -> Any:
        return await self._store.submit(Kind.OTHER, work, 1)


def _overlap(word: str, owned: frozenset[int]) -> bool:
    try:
        told = int(word, 16)
    except ValueError:
        return True  # from a newer version: look
    return owned == EVERY_PARTITION or any(told >> part & 1 for part in owned)
