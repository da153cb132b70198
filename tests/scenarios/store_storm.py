"""Restart the database under nodes at work, promote its standby, or cut their connections to it; then hold what they
promised against the ledger.

No node is touched: whatever happens, no one may have to start it anew. Clients go on asking all the while. They are told
'yes', or 503 with the moment to try again, and never left without an answer.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from tests.contracts.stores.postgres_server import in_thread
from tests.contracts.stores.postgres_standby import Pair
from tests.scenarios.ledger import taken_by_text
from tests.scenarios.node_figures import Figures
from tests.scenarios.node_storm import Node, NodeStorm
from tests.scenarios.server import Reply, text_body, until

RECOVERY_S = 10.0
"""So soon after the database is back everything goes on."""
PICKUP_S = 1.0
"""So soon a message is sent that was given to a node which does not send it."""
ANSWER_S = 10.0
"""So long a client waits: every answer comes within it, also while the database is away."""
CONNECTIONS = ("word", "writer", "lease")
REORDERED = ("--reordered",)
"""Whether a message's commit was made is found out once the database is back: others came into line before it."""
_PROBE = "probe"
_BUSY_S = 0.5


class StoreStorm(NodeStorm):
    """Nodes on a database of their own that is restarted, in each of three ways; at the end its standby takes its place."""

    patience = ANSWER_S
    audit_options = REORDERED

    def __init__(self, folder: Path, servers: Pair, seed: int, **more: Any) -> None:
        super().__init__(folder, servers.url, seed, **more)
        self.servers, server = servers, servers.primary
        self.ways: Sequence[Callable[[], None]] = (
            lambda: server.stop("fast"),
            lambda: self._unanswered(lambda: server.stop("immediate")),
            lambda: self._unanswered(server.kill),
        )
        self.last = 0
        """The fault after which the primary does not come back."""

    def run(self, victims: int, count: int = 3, low: float = 0.2, high: float = 1.5) -> Figures:
        """So many times, of which the last is a fail-over."""
        self.last = victims
        return super().run(victims, count, low, high)

    def _fault(self) -> None:
        """Take the database away for a moment, by one way after the other; wait until everything goes on."""
        self.figures.restarts += 1
        if self.figures.restarts == self.last:
            self.servers.fail_over()
        else:
            self.ways[self.figures.restarts % len(self.ways)]()
            time.sleep(self.chance.uniform(0, 2))
            self.servers.primary.start()
        go_on(self)

    def _unanswered(self, end: Callable[[], None]) -> None:
        """End the primary while nodes wait for the answers of commits that it has made."""
        with self.servers.standby.stopped():
            time.sleep(_BUSY_S)
            end()


class CutStorm(NodeStorm):
    """Single connections of nodes are cut by the database: those that listen, write, or hold the lease."""

    patience = ANSWER_S
    audit_options = REORDERED

    def _storm(self, victims: int, low: float, high: float) -> None:
        # An account for each node to own, of which only the probes send: nothing but word holds them up.
        for index in range(len(self.nodes) * 2):
            self.nodes[0].account(f"{_PROBE}{index}", self.witness, 9000 + index, pool=f"{_PROBE}{index}")
        super()._storm(victims, low, high)

    def _fault(self) -> None:
        what = CONNECTIONS[self.figures.cuts % len(CONNECTIONS)]
        node = self.chance.choice(self.nodes)
        assert in_thread(lambda: _cut(self.store, f"paceline {node.id} {what}")), f"{what} is not connected"
        self.figures.cuts += 1
        go_on(self)
        self._pick_up(node)

    def _pick_up(self, node: Node) -> None:
        """A message for every probe, given to the node that was cut; the slowest start of a call."""
        sent = [self._given(node, f"{_PROBE}{index}") for index in range(len(self.nodes) * 2)]
        begun = time.monotonic()
        for id_ in sent:
            until(lambda id_=id_: node.get(id_)["state"] == "completed", "the probe is sent", 60)  # type: ignore[misc]  # bound
        self.figures.pickups.append(time.monotonic() - begun)

    def _given(self, node: Node, account: str) -> str:
        """The id of a message that the node took; it may refuse until it has noticed and mended what was cut."""
        message = text_body(account, f"{account}-{self.figures.cuts}")
        reply = until(lambda: _unless_refused(node, message), "the node takes a message", RECOVERY_S)
        assert reply is not None
        return str(reply.json["id"])

    def _judge(self) -> None:
        super()._judge()
        # The probes are nobody's messages but ours.
        self.figures.foreign = [text for text in self.figures.foreign if not text.startswith(_PROBE)]
        taken = taken_by_text(self.witness.arrivals())
        probes = [len(found) for text, found in taken.items() if text.startswith(_PROBE)]
        assert len(probes) == self.figures.cuts * len(self.nodes) * 2, "a probe is missing"


def _unless_refused(node: Node, message: dict[str, Any]) -> Reply | None:
    reply = node.ask("POST", "/api/v1/messages", message)
    assert reply.status in {202, 503}, (reply.status, reply.body)
    return None if reply.status == 503 else reply


def go_on(storm: NodeStorm) -> None:
    """Wait until every node is ready and something arrives again; note how long that took."""
    begun = time.monotonic()
    arrived = storm.witness.report()["arrived"]
    for node in storm.nodes:
        until(lambda node=node: node.ask("GET", "/health/ready").status == 200, "it is ready", 60)  # type: ignore[misc]  # bound
    storm.witness.wait(within=60, arrived=arrived + 1)
    storm.figures.recoveries.append(time.monotonic() - begun)


async def _cut(url: str, application: str) -> bool:
    """End a connection by its name, if it can be in the middle of something; whether there was one."""
    connection = await asyncpg.connect(url.partition("?")[0], timeout=10)
    try:
        deadline = asyncio.get_running_loop().time() + _BUSY_S
        while True:
            pid, busy = await connection.fetchrow(
                "SELECT pid, xact_start IS NOT NULL FROM pg_stat_activity WHERE application_name = $1",
                application,
            ) or (None, False)
            if busy or asyncio.get_running_loop().time() > deadline:
                break
        return bool(await connection.fetchval("SELECT pg_terminate_backend($1)", pid)) if pid else False
    finally:
        await connection.close()
