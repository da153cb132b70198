"""Several nodes on one store: what each is, which partitions there are, and what one has to tell the others.

A lane belongs to one of a fixed number of partitions, by a hash of its name that every node computes alike; a partition
is owned by one node at a time. All times of nodes are by the database's clock, in milliseconds since 1970.
"""

from functools import lru_cache
from hashlib import blake2b

import msgspec

PARTITIONS = 64
"""How many there are, for ever: the number is in what is stored. So many nodes can share the work at most."""
EVERY_PARTITION = frozenset(range(PARTITIONS))


@lru_cache(maxsize=100_000)
def partition_of(lane: str) -> int:
    """The partition of a lane: the same on every node and in every version."""
    return blake2b(lane.encode(), digest_size=1).digest()[0] % PARTITIONS


def partition_of_flow(flow: int) -> int:
    """The partition of a flow's lane, which its number carries."""
    return flow % PARTITIONS


class Node(msgspec.Struct, frozen=True):
    """One process, from its start to its end. `id` is random; `slot` is small, and free again after the end.

    `late`: its lease has run out; `gone`: its process is known to be dead. In both cases another node may end it. `off` is
    by how many milliseconds its clock may be apart from the database's.
    """

    id: str
    slot: int
    name: str
    role: str
    process: int
    started_at: int
    heartbeat_at: int
    lease_ends_at: int
    off: int
    late: bool
    gone: bool

    @property
    def lapsed(self) -> bool:
        """Whether another node may end it."""
        return self.late or self.gone

    @property
    def sends(self) -> bool:
        """Whether it may own partitions."""
        return self.role != "api"


class Standing(msgspec.Struct, frozen=True):
    """How things stand between the nodes: those that have not ended, and who owns each partition (None: nobody).

    `ended`: this node itself was ended. `woken`: others left word for partitions that this node owns. `revision` grows
    with every change of a document, `wide` with every change of a limit wider than a lane.
    """

    nodes: tuple[Node, ...]
    owners: tuple[str | None, ...]
    ended: bool
    woken: bool
    revision: int
    wide: int = 0


class Wake(msgspec.Struct, array_like=True, frozen=True):
    """Another node stored messages of a flow that this one owns: `many` of them, none before (`turn`, `id`).

    `due_at` and `expires_at` are the first moments at which one of them is due or expires, by the wall clock.
    """

    flow: int
    turn: int
    id: int
    many: int
    due_at: int | None
    expires_at: int | None


class Known(msgspec.Struct, array_like=True, frozen=True):
    """A node that lives, or ended (`ended_at`) not long ago, as the store has it, with how many partitions and calls are its.

    `program` is the newest schema that its program knows; 0 where the store does not say.
    """

    id: str
    name: str
    role: str
    process: int
    started_at: int
    heartbeat_at: int
    lease_ends_at: int
    ended_at: int | None
    off: int
    program: int
    partitions: int
    calls: int

    @property
    def sends(self) -> bool:
        """Whether it may own partitions."""
        return self.role != "api"

    def late_ms(self, now: int) -> int:
        """How long ago its lease ran out, of one that nobody ended; 0 or less where it holds."""
        return 0 if self.ended_at is not None else now - self.lease_ends_at


class Roll(msgspec.Struct, frozen=True):
    """The nodes of a store at one moment (`now`, by the store's clock), and how many partitions are nobody's."""

    nodes: tuple[Known, ...]
    free: int
    now: int
