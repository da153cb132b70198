"""A real engine (SQLite, dispatcher, everything) with a channel that only notes the moments of its calls."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paceline.channels.base import Channel, Outgoing, SendingAccount
from paceline.clock import SystemClock
from paceline.engine.core import Core, Options
from paceline.engine.recovery import restore_gates
from paceline.engine.secrets import Vault
from paceline.model.accounts import DEFAULT_POOL, AccountSpec
from paceline.model.limits import parse_limit
from paceline.model.outcomes import Accepted, Outcome
from paceline.stores.sqlite import SqliteStore


class Noop(Channel):
    """Accepts at once. `seen` is called with the account and the message."""

    name = "noop"
    bodies = frozenset({"text"})
    body_required = frozenset({"text"})

    def __init__(self) -> None:
        """Nothing sent yet."""
        self.count = 0
        self.seen: Callable[[str, Outgoing], None] | None = None
        self.arrivals: dict[str, list[float]] = defaultdict(list)

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """Note it."""
        self.count += 1
        if self.seen is not None:
            self.seen(account.name, message)
        return Accepted("noop")


class Engine:
    """A core on a store in a folder."""

    def __init__(self, folder: Path, in_flight: int = 2000, store: Any = None) -> None:
        """Not open yet; on a SQLite file in the folder, unless another store is given."""
        self.clock = SystemClock()
        self.store = store or SqliteStore(folder / "bench.db")
        self.channel = Noop()
        self.core = Core(
            self.store, {"noop": self.channel}, self.clock, Vault(bytes(32)), random.random, lambda _url: None,
            Options(in_flight=in_flight),
        )  # fmt: skip

    async def open(
        self, accounts: int, limits: list[str], concurrency: int | None = 8, pools: int | None = None
    ) -> None:
        """Open the store and make accounts a0, a1, ... in one pool, or in so many."""
        await self.store.open(self.clock.now())
        for index in range(accounts):
            self.core.directory.set_account(
                AccountSpec(
                    owner="default", name=f"a{index}", channel="noop",
                    limits=tuple(parse_limit(text) for text in limits), concurrency=concurrency,
                    pool=f"p{index % pools}" if pools else DEFAULT_POOL,
                )
            )  # fmt: skip
        await self._load()
        self.core.upkeep.start()

    async def _load(self) -> None:
        core = self.core
        await restore_gates(core.store, core.agenda, core.directory, core.gates)

    async def fill(self, count: int, body: Callable[[int], Mapping[str, Any]]) -> None:
        """Take in `count` messages, durable, in batches of 1,000."""
        core = self.core
        for start in range(0, count, 1000):
            now = self.clock.now()
            part = range(start, min(count, start + 1000))
            prepared = [core.intake.prepare(body(index), "default", now) for index in part]
            flows = {p.row.flow: p.flow for p in prepared if p.row.flow not in core.gates.keys}
            await core.store.add([p.row for p in prepared], list(flows.values()), now)
            core.gates.keys.update(flows)
            core.arrived([(each.row, each.flow) for each in prepared])

    async def close(self) -> None:
        """Stop and close."""
        await self.core.dispatcher.stop(5)
        await self.core.upkeep.stop()
        await self.store.close()


def text_of(index: int, accounts: int) -> dict[str, Any]:
    """A message of about 200 bytes, to accounts in turn."""
    return {
        "channel": "noop",
        "account": f"a{index % accounts}",
        "to": f"r{index}",
        "text": "Order shipped. " * 12,
    }
