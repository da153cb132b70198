"""One node of a schema: how it joins, what lets it write, how it ends others, and how it leaves.

Every commit of a node begins with its own row in `fence`. Whoever ends a node changes that row, for which it waits for
the commit that the node is just making; so from that moment on the ended node can write nothing, whatever it believes.
The row carries the number of the last commit as well: after a connection was lost in the middle of a commit, it is what
tells whether that commit was made.
"""

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Final

import structlog

from paceline.model.errors import EndedError, OccupiedError
from paceline.model.nodes import EVERY_PARTITION, PARTITIONS, Node
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import Session, collided

LEASE_S: Final = 5.0
_LOCK_MS: Final = 300
"""How long who ends a node waits for that node's last commit before its connection is ended."""

log = structlog.get_logger("paceline.store")


class Membership:
    """This process as a node of a schema, from `join` until it leaves or is ended."""

    def __init__(self, address: Address, role: str = "all", lease_s: float = LEASE_S) -> None:
        """Not joined yet. `role` "api" never owns a partition, "alone" shares with nobody."""
        self.id = secrets.token_hex(8)
        self.role = role
        self.lease_ms = round(lease_s * 1000)
        self.slot = 0
        self.owned: frozenset[int] = frozenset()
        self.giving: frozenset[int] = (
            frozenset()
        )  # being given away, and not owned any more as far as we tell others
        self.version = 0  # grows whenever these two change
        self._address = address

    @property
    def writer_name(self) -> str:
        """How its writing connection is named to the server."""
        return writer_name(self.id)

    @property
    def parts(self) -> list[int]:
        """The partitions that it owns, in order."""
        return sorted(self.owned)

    async def join(self, session: Session, program: int) -> None:
        """Become a node; the lock of the schema is held. Alone, it takes every partition at once.

        `program` is the newest schema that this program knows: who changes the schema looks at it.

        Raises:
            OccupiedError: there are as many nodes as there can be, or one that has to be alone.
        """
        for node in await living(session):
            if node.lapsed:
                await end(session, node)
        there = await living(session)
        for node in there:
            if "alone" in {self.role, node.role}:
                raise OccupiedError(
                    f"{self._address.name} is in use by process {node.process} on {node.name}; stop that one, or give "
                    "this one another schema (?schema=NAME)"
                )
        async with session.connection.transaction():
            await session.run("lock_members", self._address.schema)
            slot = await session.value(
                "join",
                self.id,
                socket.gethostname(),
                self.role,
                machine(),
                os.getpid(),
                self.lease_ms,
                program,
            )
            if slot is None:
                raise OccupiedError(f"{self._address.name} has {PARTITIONS} nodes; stop one of them first")
            await session.run("put_fence", self.id)
        self.slot = slot
        session.slot, session.number = slot, node_number(self.id)
        if self.role != "api" and not await session.rows("other_senders", self.id):
            self.owned = frozenset(await self.take(session, sorted(EVERY_PARTITION)))

    async def take(self, session: Session, partitions: list[int]) -> list[int]:
        """Take what nobody owns; inside a commit of this node, or before its first one."""
        return sorted(number for (number,) in await session.rows("take", self.id, partitions))

    async def regain(self, session: Session) -> tuple[int, bool]:
        """After a lost connection: say, through a new one, which commit was the last, and whether this node was ended.

        By then nothing is under way any more that the lost connection began: the row is locked by whatever is.
        """
        await session.value("end_former", self.writer_name)
        row = await session.row("last_commit", self.id)
        if row is None:
            return 0, True
        session.slot, session.number = self.slot, node_number(self.id)
        return row["batch"], row["ended"]

    async def leave(self, session: Session) -> None:
        """Give everything back and be gone."""
        async with session.connection.transaction():
            await session.run("end_node", self.id)  # in the order in which others end a node
            await session.run("end_fence", self.id)
            await session.rows("free", self.id)

    def lost(self) -> EndedError:
        """What to say when this node was ended."""
        return EndedError(
            f"another node ended this one on {self._address.name}, since its lease had run out; it writes nothing "
            "any more under that name"
        )


async def living(session: Session) -> list[Node]:
    """The nodes that have not ended; `lapsed` ones may be ended."""
    found: list[Node] = []
    for row in await session.rows("nodes"):
        *known, where, late = row
        known += [late, is_gone(where, known[4])]
        found.append(Node(*known))
    return found


async def end(session: Session, node: Node) -> bool:
    """End a node whose lease has run out or whose process is gone; whether it was. What it owned is free then.

    The session is one that nobody else uses meanwhile, and no transaction is open on it.
    """
    for _ in range(2):
        try:
            return await _end(session, node)
        except Exception as error:
            if not collided(error):
                raise
            # It was stopped in the middle of a commit, or its machine is gone and the server has not noticed.
            await session.value("end_former", writer_name(node.id))
    return False


async def _end(session: Session, node: Node) -> bool:
    connection = session.connection
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
        if await session.value("lock_lapsed", node.id, node.gone) is None:
            return False
        await session.run("end_fence", node.id)
        await session.run("end_node", node.id)
        freed = await session.rows("free", node.id)
    log.warning(
        "ended a node", node=node.id, host=node.name, process=node.process, partitions=len(freed),
        last_heard_ms=node.heartbeat_at,
    )  # fmt: skip
    return True


def node_number(node: str) -> int:
    """The number by which places of wide limits tell who used them last."""
    return int.from_bytes(bytes.fromhex(node), "big", signed=True)


def writer_name(node: str) -> str:
    """How the writing connection of a node is named to the server."""
    return f"paceline {node} writer"


def machine() -> str:
    """This machine until its next start, as processes see it that can ask after each other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return f"{socket.gethostname()} {sys.platform}"
    return f"{boot} {space}"


def is_gone(where: str, process: int) -> bool:
    """Whether a process is known to be dead: only of one on this machine can that be known."""
    if where != machine() or sys.platform == "win32":  # there, asking after a process would end it
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
