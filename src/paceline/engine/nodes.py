"""This process among the nodes of a shared store: what it takes, gives away, follows, and how it comes back when ended.

A loop looks at how things stand: at once when somebody sends word, else twice a second. What it finds out of date it
mends, one thing after the other; so whatever fails is tried again at the next look.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from paceline.engine.core import Core
from paceline.engine.node_views import list_nodes
from paceline.engine.recovery import restore_lanes, settle_open
from paceline.engine.word import hear
from paceline.model.errors import EndedError, PacelineError, SchemaError
from paceline.model.ids import IdMaker
from paceline.model.nodes import PARTITIONS, Node, Standing, Wake, partition_of, partition_of_flow
from paceline.pacing.lane import Release
from paceline.pacing.shares import Overdue, next_gift, share_of
from paceline.stores.base import Document
from paceline.stores.nodes import Changed, NodeStore

LOOK_S: Final = 0.5
"""The longest between two looks."""
PATIENCE_S: Final = 10.0
"""How long the calls of partitions that are to be given away may take; then they stay for a while."""
REST_S: Final = 30.0
FORGET_MS: Final = 40 * 86_400_000
"""Nodes that ended longer ago than any limit looks back are forgotten."""
CALLS_S: Final = 2.0
MARGIN_MS: Final = 60_000

log = structlog.get_logger("paceline.nodes")


class Nodes:
    """Keeps the engine in step with what this node owns."""

    def __init__(self, core: Core, store: NodeStore, apply: Callable[[Changed], Awaitable[None]]) -> None:
        """`apply` brings a document that another node changed into force."""
        self._core, self._store, self._apply = core, store, apply
        self._rung = asyncio.Event()
        self._revision = 0
        self._task: asyncio.Task[None] | None = None
        self._giving: asyncio.Task[None] | None = None
        self._pending: frozenset[int] = frozenset()  # owned, and not yet decided about
        self._unheard: list[Wake] = []  # taken out of the store: not to be lost
        self._rest_until: dict[int, float] = {}
        self._overdue = Overdue(LOOK_S)
        self._forget_at = 0.0
        self._trouble_at: float | None = None
        self._others: set[tuple[str, int]] = set()
        self.standing: Standing | None = None

    # -- life

    async def begin(self) -> frozenset[int]:
        """The store is open: take its clock, look for the first time; answers the partitions to start with."""
        core, store = self._core, self._store
        store.watch(self._clock_ms, self._rung.set)
        ahead = await store.time_ahead(self._clock_ms)
        if abs(ahead) > 2:
            log.info("going by the database's clock", ahead_ms=round(ahead))
            core.clock.follow(ahead)
        core.ids = IdMaker(store.slot)
        self.standing = standing = await store.standing()
        self._revision = standing.revision
        core.owned = store.owned
        return store.owned

    def start(self) -> None:
        """Everything is loaded and recovered: from here on follow what changes."""
        self._task = asyncio.get_running_loop().create_task(self._work(), name="paceline-nodes")

    async def stop(self) -> None:
        """Take and give nothing more."""
        for task in (self._task, self._giving):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _clock_ms(self) -> float:
        return self._core.clock.now() + 0.5

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._rung.wait()
            self._rung.clear()
            try:
                await self._look()
            except EndedError as error:
                await self._come_back(error)
            except PacelineError as error:
                self._trouble_at = asyncio.get_running_loop().time()
                log.warning("could not look at the other nodes", reason=str(error))
            except Exception:
                log.exception("looking at the other nodes failed")

    # -- one look

    async def _look(self) -> None:
        standing = await self._store.standing()
        if standing.ended:
            raise EndedError("another node ended this one")
        for node in standing.nodes:
            if node.id != self._store.id and self._may_end(node) and await self._store.end(node):
                self._rung.set()  # what it owned is free now
        self.standing = standing
        if standing.revision > self._revision:
            for change in await self._store.changed(self._revision):
                await self._apply(change)
            self._revision = standing.revision
        await self._heed(standing)
        await self._follow(standing)
        if standing.woken:
            self._unheard += await self._store.woken()
        while self._unheard:
            await hear(self._core, self._unheard[0])
            self._unheard.pop(0)
        await self._forget()

    def _may_end(self, node: Node) -> bool:
        """Whether it has lapsed, and not because the store was away for all: then they have time to renew."""
        if node.gone or not node.late or self._trouble_at is None:
            return node.lapsed
        lease_s = (node.lease_ends_at - node.heartbeat_at) / 1000
        return asyncio.get_running_loop().time() - self._trouble_at > lease_s

    async def _follow(self, standing: Standing) -> None:
        """Take what is ours by now, and offer what is too much."""
        gone = self._core.owned - self._store.owned - self._pending
        if gone:
            self._lose(gone)
        if not self._sends(standing):
            return
        senders = sorted(node.id for node in standing.nodes if node.sends and not node.lapsed)
        overdue = self._overdue.seen(standing.owners, asyncio.get_running_loop().time())
        share = share_of(self._store.id, standing.owners, senders, overdue)
        if share.take:
            taken = await self._store.take(share.take)
            log.info("took partitions", count=len(taken))
        gained = self._store.owned - self._core.owned - self._pending
        if gained:
            await self._gain(gained)
        seen = {number for number, owner in enumerate(standing.owners) if owner == self._store.id}
        # What was given away since this was seen would be given a second time, as something else.
        current = seen == self._store.owned
        if share.offers and not share.take and self._giving is None and current:
            self._offer(share.offers)

    async def compare_clocks(self) -> None:
        """How far off the times may be that others wrote, as far back as a limit or a wait can reach."""
        core = self._core
        spans = [limit.span_ms for spec in core.directory.accounts.values() for limit in spec.limits]
        spans += [rule.limit.span_ms for rule in core.directory.rules.values()]
        reach = max(MARGIN_MS, core.attempts.longest_wait_ms, *spans) + MARGIN_MS
        core.gates.apart = await self._store.apart(reach)

    async def check_key(self) -> None:
        """Whether this node can read the secrets of accounts: with another key it would hold up what it takes over.

        Raises:
            SchemaError: it cannot, and other nodes use the store.
        """
        core, place = self._core, "vault/check"
        known = await core.store.documents("vault")
        if known:
            try:
                core.vault.unseal(known[0].body, place)
            except SchemaError:
                if self.standing is not None and len(self.standing.nodes) > 1:
                    raise SchemaError(
                        "secret.key in the data folder is not the one of the other nodes on this store: copy theirs"
                    ) from None
            else:
                return
        await core.store.put(
            [Document("vault", "", "check", core.vault.seal(place, place), core.clock.now())]
        )

    async def agree(self) -> None:
        """Before the first send, with the configuration loaded: the store counts wide limits by it."""
        core = self._core
        if core.dispatcher.places is not None and self.standing is not None:
            core.dispatcher.places.ring = self._rung.set
            directory = core.directory
            await core.dispatcher.places.agree(
                list(directory.rules.values()),
                list(directory.queues.values()),
                self.standing.wide,
                core.clock.now(),
            )

    async def _heed(self, standing: Standing) -> None:
        """What is known of the other nodes by now: the limits that they changed, how many send, how their clocks go."""
        places = self._core.dispatcher.places
        if places is not None:
            places.share(sum(node.sends and not node.lapsed for node in standing.nodes))
            if places.follow(standing.wide):
                self._core.dispatcher.wake()
        others = {(node.id, node.off) for node in standing.nodes if node.id != self._store.id}
        if others != self._others:
            await self.compare_clocks()
            self._others = others

    def _sends(self, standing: Standing) -> bool:
        return any(node.id == self._store.id and node.sends for node in standing.nodes)

    async def _gain(self, partitions: frozenset[int]) -> None:
        """Decide about these partitions from now on: settle what was open, rebuild what limits need, then send."""
        core = self._core
        core.owned |= partitions
        try:
            await self.compare_clocks()
            found = await settle_open(
                core.store, core.directory, core.clock, core.dispatcher.follow_up, partitions
            )
            flows = await restore_lanes(core.store, core.agenda, core.directory, core.gates, partitions)
        except BaseException:
            self._lose(partitions)  # the next look begins anew
            raise
        for flow in flows:
            core.dispatcher.pending[flow.number] = flow.pending
        if found.suspects:
            core.suspects.begin(found.suspects)
        core.upkeep.look()
        core.dispatcher.wake()
        log.info("decides about partitions", count=len(partitions), all=len(core.owned), flows=len(flows))

    def _lose(self, partitions: Collection[int]) -> None:
        """Others decide about these partitions."""
        core = self._core
        core.owned -= frozenset(partitions)
        for key in [key for key in core.agenda.lanes if partition_of(key) in partitions]:
            core.agenda.drop(key)
        for flow in [flow for flow in core.dispatcher.pending if partition_of_flow(flow) in partitions]:
            del core.dispatcher.pending[flow]

    # -- giving away

    def _offer(self, offers: Sequence[tuple[int, str]]) -> None:
        """Give some of them away, to one node at a time: instead of those in the plan those that are least busy."""
        now = asyncio.get_running_loop().time()
        calls = Counter(map(_partition, self._core.agenda.out.values()))
        resting = [number for number, until in self._rest_until.items() if until > now]
        partitions, to = next_gift(offers, self._core.owned, calls, resting)
        if partitions:
            self._giving = asyncio.get_running_loop().create_task(self._give(partitions, to))

    async def _give(self, partitions: frozenset[int], to: str) -> None:
        """Release nothing more there, let the calls end and be settled, then hand it over.

        Whatever comes meanwhile stays in the store. If the calls take too long the partitions stay here for a while.
        """
        core = self._core
        self._pending |= partitions
        core.owned -= partitions
        given: Collection[int] = ()
        try:
            if await self._quiet(partitions):
                given = await self._store.give(sorted(partitions), to)
                log.info("gave partitions away", count=len(given), to=to)
        except PacelineError as error:
            log.warning("could not give partitions away", reason=str(error))
        finally:
            self._pending -= partitions
            kept = partitions.difference(given)
            self._lose(given)
            if kept:
                self._reopen(kept)
            self._giving = None
            self._rung.set()

    async def _quiet(self, partitions: frozenset[int]) -> bool:
        """Whether every call there ended in time and is settled; nothing begins meanwhile."""
        core, loop = self._core, asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S
        while loop.time() < end:
            for key, lane in core.agenda.lanes.items():
                if partition_of(key) in partitions:
                    lane.closed = True
            if not any(_partition(each) in partitions for each in core.agenda.out.values()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, end - loop.time())):
                        await core.dispatcher.written()
                    return True
            await asyncio.sleep(0.01)
        return False

    def _reopen(self, partitions: Collection[int]) -> None:
        """They stay: the next look gains them anew, with what came meanwhile."""
        rest = asyncio.get_running_loop().time() + REST_S
        self._rest_until |= dict.fromkeys(partitions, rest)
        core = self._core
        for key, lane in core.agenda.lanes.items():
            if partition_of(key) in partitions:
                lane.closed = False
                for account in lane.accounts.values():
                    core.agenda.touched(lane, account)
        core.owned |= frozenset(partitions)
        self._reread(partitions)

    def _reread(self, partitions: Collection[int]) -> None:
        core = self._core

        async def read() -> None:
            for flow in await self._store.flows(sorted(partitions)):
                core.agenda.known(flow.number, flow.key)
            core.upkeep.look()
            core.dispatcher.wake()

        task = asyncio.get_running_loop().create_task(read())
        task.add_done_callback(_log_failure)

    # -- being ended

    async def _come_back(self, error: EndedError) -> None:
        """Others have what this node had. Forget all of it, and join again with nothing."""
        core = self._core
        log.error("this node was ended; it stops and joins anew", reason=str(error))
        if self._giving is not None:
            self._giving.cancel()
            with suppress(asyncio.CancelledError):
                await self._giving
        calls = core.dispatcher.forget()
        self._lose(frozenset(range(PARTITIONS)))
        self._pending = frozenset()
        self._unheard.clear()
        core.suspects.forget()
        if calls:
            await asyncio.wait(calls, timeout=CALLS_S)
        while True:
            try:
                await self._store.rejoin()
                core.ids = IdMaker(self._store.slot)
                core.ids.start_behind(await core.store.greatest_id())
                break
            except PacelineError as refused:
                log.warning("could not join again yet", reason=str(refused))
                await asyncio.sleep(1.0)
        self._store.watch(self._clock_ms, self._rung.set)
        self._rung.set()
        log.warning("joined again as a new node", node=self._store.id)

    # -- looking at it

    def list(self) -> dict[str, Any]:
        """The nodes as they were at the last look, at most half a second ago."""
        return list_nodes(self._core, self.standing, self._store.id)

    async def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at and 0 in self._core.owned:
            self._forget_at = now + 3600
            await self._store.forget(self._core.clock.now() - FORGET_MS)


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning("could not read on; the next word or restart does", reason=str(task.exception()))


def _partition(release: Release) -> int:
    return partition_of(release.lane.key)
