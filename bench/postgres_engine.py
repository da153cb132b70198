"""A real node on PostgreSQL (store, lease, looks at the others, dispatcher) with the channel that only notes its calls.

As a program it is one of several senders: `python -m bench.postgres_engine URL SECONDS` says `ready` when it has its share
of what `waits` there, begins at a line of input, and prints how many messages it brought to a durable end in so many
seconds.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine import Engine
from bench.postgres_place import ACCOUNTS
from paceline.engine.nodes import Nodes
from paceline.engine.recovery import restore_gates
from paceline.model.nodes import PARTITIONS
from paceline.stores.nodes import Changed
from paceline.stores.postgres import PostgresStore
from paceline.wiring import GC_EVERY, SWITCH_S


class Node(Engine):
    """An engine that is a node of a schema; its accounts are in `pools` pools."""

    def __init__(self, url: str, in_flight: int = 2000, role: str = "all") -> None:
        """Not open yet."""
        super().__init__(Path(), in_flight, PostgresStore(url, role))
        assert self.store.nodes is not None
        self.nodes = Nodes(self.core, self.store.nodes, _nothing)
        self.settled = 0
        self.core.happenings.when_settled.append(self._tell)

    async def _load(self) -> None:
        core, store = self.core, self.store
        await self.nodes.begin()
        core.ids.start_behind(await store.greatest_id())
        await restore_gates(store, core.agenda, core.directory, core.gates, core.owned)
        for flow in await store.nodes.flows(sorted(core.owned)):
            core.dispatcher.pending[flow.number] = flow.pending
        self.nodes.start()

    def _tell(self, ended: Sequence[Any]) -> None:
        self.settled += len(ended)

    async def close(self) -> None:
        """Stop and close."""
        await self.nodes.stop()
        await super().close()


async def _nothing(_change: Changed) -> None:
    """Nobody changes a document here."""


async def send(url: str, seconds: float, senders: int) -> None:
    """Be one of several senders."""
    node = Node(url)
    await node.open(ACCOUNTS, ["1000000/s"], concurrency=None, pools=ACCOUNTS)
    share = PARTITIONS // senders
    async with asyncio.timeout(60):
        while len(node.core.owned) != share:
            await asyncio.sleep(0.05)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    node.core.dispatcher.start()
    await asyncio.sleep(0.5)  # the first ones fill caches
    start, cpu, before = time.perf_counter(), time.process_time(), node.settled
    await asyncio.sleep(seconds)
    took = time.perf_counter() - start
    print(
        json.dumps({"rate": (node.settled - before) / took, "cores": (time.process_time() - cpu) / took}),
        flush=True,
    )
    node.core.dispatcher.pause()
    await node.close()


def main() -> None:
    """See the module."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(GC_EVERY, 20, 50)
    url, seconds, senders = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    try:
        import uvloop
    except ImportError:
        asyncio.run(send(url, seconds, senders))
    else:
        uvloop.run(send(url, seconds, senders))


if __name__ == "__main__":
    main()
