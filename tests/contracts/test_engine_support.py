"""What the suites of the engine's verbs stand on: a running engine over a real store, and a scripted channel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline.channels.base import Channel, Outgoing, SendingAccount
from paceline.clock import Clock, ManualClock, SystemClock
from paceline.engine.core import Options
from paceline.engine.events import StreamEvent
from paceline.engine.keys import Caller
from paceline.engine.secrets import Vault
from paceline.engine.service import Service
from paceline.engine.threads import ThreadPool
from paceline.model.checks import print_time
from paceline.model.outcomes import Accepted, Outcome
from paceline.stores.base import Store
from tests.contracts.stores import kinds

ADMIN = Caller(None, "admin", "root key")
ACME = Caller("acme", "admin", "acme key")
OTHER = Caller("other", "admin", "other key")
PATIENCE = 20.0


def role(name: str, tenant: str | None = None) -> Caller:
    return Caller(tenant, name, f"{name} key")


class Script(Channel):
    """Answers what it was told to, else accepts; can hold every call until it is let go."""

    name = "script"
    default_queue = "notification"
    bodies = frozenset({"text"})

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []  # (message id, account) in the order of the calls
        self.outcomes: list[Outcome] = []
        self.free = asyncio.Event()
        self.free.set()
        self._called = asyncio.Condition()

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        async with self._called:
            self.sent.append((message.id, account.name))
            self._called.notify_all()
        await self.free.wait()
        return self.outcomes.pop(0) if self.outcomes else Accepted("ref")

    async def calls(self, count: int) -> list[tuple[str, str]]:
        """The calls, as soon as there are `count` of them."""
        async with asyncio.timeout(PATIENCE), self._called:
            await self._called.wait_for(lambda: len(self.sent) >= count)
        return self.sent


class Other(Script):
    name = "other"


class Engine:
    """A running service with one account `a0` (one call at a time) of tenant `default`, shared by all."""

    def __init__(self, folder: Path, clock: Clock | None = None, store: Store | None = None) -> None:
        self.folder = folder
        self.clock = clock or SystemClock()
        self.script, self.other = Script(), Other()
        self.threads = ThreadPool()
        self.store = store or kinds.store_in(folder)
        self.service = Service(
            self.store, {"script": self.script, "other": self.other}, self.clock, Vault(bytes(32)), lambda: 0.5,
            lambda _url: None, Options(), self.threads, {"data": str(folder)}, _nothing,
        )  # fmt: skip
        self.core = self.service.core
        self.events: list[StreamEvent] = []
        self._happened = asyncio.Event()
        self.core.bus.tap(self._heard)

    def _heard(self, event: StreamEvent) -> None:
        self.events.append(event)
        self._happened.set()

    async def start(self) -> None:
        await self.service.start(None)
        await self.account("a0", shared=True)

    async def account(self, name: str, caller: Caller = ADMIN, channel: str = "script", **more: Any) -> None:
        await self.service.accounts.put(caller, name, {"channel": channel, **more})

    async def send(self, caller: Caller = ADMIN, **body: Any) -> str:
        body = {"channel": "script", "to": "somebody", "text": "hello", **body}
        return (await self.service.messages.submit(caller, body)).id

    async def state(self, id_: str) -> str:
        view: dict[str, Any] = await self.service.messages.get(ADMIN, id_)
        return str(view["state"])

    async def ended(self, id_: str) -> dict[str, Any]:
        """The whole message, as soon as it has ended or is uncertain."""
        view = await self.service.messages.wait(id_, PATIENCE)
        assert view is not None
        return view

    async def event(
        self, type_: str, fits: Callable[[StreamEvent], bool] = lambda _event: True
    ) -> StreamEvent:
        """The first event of a type that fits, past or to come."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if event.type == type_ and fits(event):
                        return event
                self._happened.clear()
                await self._happened.wait()

    def advance(self, seconds: float) -> None:
        """Move a clock that is moved by hand, and ring what is due by then."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(round(seconds * 1000))
        self.core.upkeep.due_at(0)
        self.core.upkeep.expires_at(0)
        self.core.dispatcher.wake()

    def later(self, seconds: float = 3600) -> str:
        return print_time(self.clock.now() + round(seconds * 1000))


async def _nothing() -> None:
    pass


@asynccontextmanager
async def running(
    folder: Path, clock: Clock | None = None, store: Store | None = None
) -> AsyncIterator[Engine]:
    """An engine, started and in the end closed; on a file in the folder, or on the store that is given."""
    engine = Engine(folder, clock, store)
    await engine.start()
    try:
        yield engine
    finally:
        engine.script.free.set()
        engine.other.free.set()
        await engine.service.close(1)


async def test_the_scripted_engine_sends(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        id_ = await engine.send()
        assert (await engine.ended(id_))["state"] == "completed"
        assert engine.script.sent == [(id_, "a0")]


async def test_the_engine_runs_on_a_clock_that_is_moved_by_hand(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000_000)
    async with running(tmp_path, clock) as engine:
        view = await engine.ended(await engine.send())
        assert view["finished_at"] == print_time(clock.now())


@pytest.mark.every_store
@pytest.mark.usual
async def test_the_store_is_of_the_kind_that_was_asked_for(tmp_path: Path, store_kind: str) -> None:
    """Else all tests of the other kind would pass without having seen it."""
    async with running(tmp_path) as engine:
        found = (await engine.store.health())["engine"]
    assert found == {"sqlite": "sqlite", "postgres": "postgresql"}[store_kind]
