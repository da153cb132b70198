"""The engine as others see it: its verbs by noun, its start and its stop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from paceline.channels.base import Channel
from paceline.clock import Clock
from paceline.engine import documents
from paceline.engine import installation as places
from paceline.engine.accounts import Accounts
from paceline.engine.actions import Actions
from paceline.engine.backups import Backups
from paceline.engine.core import Core, Options
from paceline.engine.doctor import examine
from paceline.engine.holds import HOW, Holds
from paceline.engine.keys import Keys
from paceline.engine.limits import Limits
from paceline.engine.messages import Messages
from paceline.engine.moves import clock_moves
from paceline.engine.news import News
from paceline.engine.node_views import list_alone
from paceline.engine.nodes import Nodes
from paceline.engine.queues import Queues
from paceline.engine.recovery import Recovered, restore_gates, restore_notes, settle_open, shift_retries
from paceline.engine.relay import Relays
from paceline.engine.secrets import Vault
from paceline.engine.template_verbs import Templates
from paceline.engine.threads import ThreadPool
from paceline.engine.watch import Watch
from paceline.model.errors import PacelineError, UnavailableError
from paceline.model.nodes import EVERY_PARTITION
from paceline.stores.base import Store

LOOK_AGAIN_S = 1.0
"""How often a store that cannot be reached is tried again at the start."""

log = structlog.get_logger("paceline")


class Service:
    """One running engine on one store."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        clock: Clock,
        vault: Vault,
        chance: Callable[[], float],
        check_url: Callable[[str], str | None],
        options: Options,
        threads: ThreadPool,
        facts: Mapping[str, Any],
        at_close: Callable[[], Awaitable[None]],
    ) -> None:
        """`facts` are settings that `doctor` shows; `at_close` ends what the channels share."""
        self.core = Core(store, channels, clock, vault, chance, check_url, options)
        self.core.threads = threads
        self.keys = Keys(store, clock)
        self.messages = Messages(self.core)
        self.actions = Actions(self.core)
        self.accounts = Accounts(self.core, self.messages)
        self.queues = Queues(self.core, self.actions)
        self.limits = Limits(self.core)
        self.templates = Templates(self.core)
        self.holds = Holds(self.core, self.actions)
        self.watch = Watch(self.core, self.holds)
        self.backups = Backups(self.core, facts.get("data"))
        self.relays = Relays(self.core)
        self.nodes: Nodes | None = None
        if store.nodes is not None:
            self.nodes = Nodes(
                self.core, store.nodes, News(self.core, self.accounts, self.keys, self.holds).apply
            )
            self.core.upkeep.cleans = lambda: 0 in self.core.owned
        self._threads = threads
        self._facts = dict(facts)
        self._at_close = at_close
        self._open = False
        self._waited = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Messages are accepted and sent."""
        return self._open and not self.core.dispatcher.away and self.holds.held is None

    @property
    def state(self) -> dict[str, Any]:
        """Whether it is ready, and if not, why."""
        reasons = []
        if not self._open:
            reasons.append("starting or stopping")
        if self.core.dispatcher.away:
            reasons.append("the store cannot write")
        if self.holds.held is not None:
            reasons.append(f"on hold: nothing is sent; {HOW}")
        return {"ready": self.ready, "reasons": reasons}

    async def start(self, key_file: Path | None, wait_s: float = 0) -> bool:
        """Open the store, recover, begin to send; whether a first admin key was written to `key_file`.

        A store that cannot be reached is waited for, `wait_s` seconds at most.

        Raises:
            OccupiedError, SchemaError: the store belongs to another process, or is not ours.
            ConflictError: it was moved elsewhere, or is an unfinished copy.
            UnavailableError: it cannot be reached, or not in time.
        """
        core = self.core
        await self._open_store(wait_s)
        try:
            found = await self._recover()
        except BaseException:
            await self._give_up()
            raise
        core.suspects.begin(found.suspects)
        core.loop_watch.start(asyncio.get_running_loop())
        first = key_file is not None and await self.keys.first(key_file)
        core.upkeep.start()
        core.dispatcher.start()
        self.relays.start()
        if self.nodes is not None:
            self.nodes.start()
        self._open = True
        return first

    def wait_no_more(self) -> None:
        """Whoever starts, and waits for the store, gives up."""
        self._waited.set()

    async def _reach(self, wait_s: float) -> None:
        """Open the store as soon as it can be reached."""
        store, loop = self.core.store, asyncio.get_running_loop()
        until, told = loop.time() + wait_s, ""
        while True:
            try:
                await store.open(self.core.clock.now())
                return
            except UnavailableError as error:
                if loop.time() >= until or self._waited.is_set():
                    raise
                if str(error) != told:
                    told = str(error)
                    left = round(until - loop.time())
                    log.warning("waiting for the store", reason=told, at_most_s=left)
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._waited.wait(), min(LOOK_AGAIN_S, max(0, until - loop.time()))
                    )

    async def _open_store(self, wait_s: float = 0) -> None:
        store = self.core.store
        await self._reach(wait_s)
        try:
            places.check_usable(places.read(await store.documents(places.KIND)))
        except BaseException:
            await store.close()
            raise

    async def _recover(self) -> Recovered:
        """Everything that has to be known before the first send."""
        core = self.core
        if self.nodes is not None:
            await self.nodes.begin()
        core.ids.start_behind(await core.store.greatest_id())
        await documents.load(core)
        await self.accounts.load()
        await self.keys.load()
        if self.nodes is None:  # nodes go by the store's clock instead of that of their machine
            core.gates.moves = await clock_moves(core.store, core.clock)
            await shift_retries(core.store, core.gates.moves.latest, core.clock.now())
        else:
            await self.nodes.check_key()
            await self.nodes.compare_clocks()
            await self.nodes.agree()
        found = await settle_open(
            core.store, core.directory, core.clock, core.dispatcher.follow_up, core.owned
        )
        await restore_gates(core.store, core.agenda, core.directory, core.gates, core.owned)
        flows = await (
            core.store.flows() if core.store.nodes is None else core.store.nodes.flows(sorted(core.owned))
        )
        for flow in flows:
            core.dispatcher.pending[flow.number] = flow.pending
        await self.holds.load()
        return found

    async def _give_up(self) -> None:
        """Another node need not wait for one that could not start."""
        if self.nodes is not None:
            with suppress(PacelineError):
                await self.core.store.close()

    def hurry(self) -> None:
        """Cut off the calls under way: whoever closes, or will, waits for no answer. They are told as uncertain."""
        self.core.attempts.cut()

    async def close(self, grace: float) -> None:
        """Take nothing more, let calls in flight end within `grace` seconds, settle, close the store."""
        self._open = False
        await self.relays.stop()
        if self.nodes is not None:
            await self.nodes.stop()
        self.core.suspects.stop()
        self.core.loop_watch.stop()
        await self.core.dispatcher.stop(grace)
        await self.core.upkeep.stop()
        await self.close_channels()
        await self.core.store.close()

    async def close_channels(self) -> None:
        """Close every connection to a provider, and the pool of threads."""
        for channel in self.core.directory.channels.values():
            await channel.close()
        await self._at_close()
        self._threads.close()

    def list_nodes(self) -> dict[str, Any]:
        """The processes that share the store, and what falls to each."""
        return list_alone(self.core) if self.nodes is None else self.nodes.list()

    async def doctor(self, *, reach: bool = False) -> list[dict[str, Any]]:
        """What is wrong or soon will be, with advice; with `reach` also whether each provider answers."""
        return await examine(self.core, self._facts, reach=reach, relays=self.relays.all)

    async def look(self) -> list[dict[str, Any]]:
        """The same for a store that nobody runs: nothing is recovered, nothing is sent, the store is closed again.

        It is opened to be written, which may bring its schema up to date: hand in a copy.
        """
        core = self.core
        await self._open_store()
        try:
            await documents.load(core)
            await self.accounts.load()
            core.owned = EVERY_PARTITION
            core.gates.shut_all(core.directory.accounts.values())
            await restore_notes(core.gates, list(core.directory.accounts.values()))
            core.gates.keys.update(await core.store.flow_keys())
            return await examine(core, self._facts, running=False)
        finally:
            await core.store.close()
