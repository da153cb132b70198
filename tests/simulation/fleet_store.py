"""What the database does about nodes and partitions, for the simulation of fleets: each call is one commit."""

from collections.abc import Collection

import msgspec

from paceline.model.nodes import PARTITIONS


class Nodes(msgspec.Struct, frozen=True):
    """The nodes that have not ended, at one moment. `version` grows with every change."""

    version: int
    living: frozenset[str]
    senders: tuple[str, ...]
    late: frozenset[str]


class Owners(msgspec.Struct, frozen=True):
    """Who owns what, at one moment."""

    version: int
    of: tuple[str | None, ...]


class Registry:
    """The tables `node`, `fence` and `partition`."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self.leases: dict[str, float] = {}
        self.ended: set[str] = set()
        self.owners: list[str | None] = [None] * partitions
        self.late: set[str] = set()
        self.moved = self.taken = self.freed = self.ends_asked = 0
        self._nodes: Nodes | None = None
        self._owners: Owners | None = None
        self._version = 0

    def join(self, node: str, until: float) -> list[int]:
        """A new node; alone it takes everything at once."""
        alone = not self.leases
        self.leases[node] = until
        self._nodes = None
        return self.take(node, range(len(self.owners))) if alone else []

    def renew(self, node: str, until: float) -> bool:
        """Whether the node lives; then until this moment at least."""
        if node not in self.leases:
            return False
        self.leases[node] = until
        if node in self.late:
            self.late.discard(node)
            self._nodes = None
        return True

    def expire(self, node: str, now: float) -> None:
        """Look whether the lease of a node has run out."""
        if node in self.leases and self.leases[node] <= now and node not in self.late:
            self.late.add(node)
            self._nodes = None

    def end(self, node: str) -> bool:
        """End a node whose lease has run out; whether it was ended by this."""
        self.ends_asked += 1
        if node not in self.late:
            return False
        self.leave(node)
        return True

    def leave(self, node: str) -> None:
        """A node is over: it writes nothing more, and what it owned is free."""
        if self.leases.pop(node, None) is None:
            return
        self.late.discard(node)
        self.ended.add(node)
        self.freed += sum(owner == node for owner in self.owners)
        self.owners = [None if owner == node else owner for owner in self.owners]
        self._nodes = self._owners = None

    def take(self, node: str, numbers: Collection[int]) -> list[int]:
        """Those of the partitions that were nobody's and are the node's now."""
        found = [number for number in numbers if self.owners[number] is None]
        for number in found:
            self.owners[number] = node
        self.taken += len(found)
        if found:
            self._owners = None
        return found

    def place(self, node: str, numbers: Collection[int]) -> None:
        """How a fleet begins."""
        for number, owner in enumerate(self.owners):
            if number in numbers or owner == node:
                self.owners[number] = node if number in numbers else None
        self._owners = None

    def give(self, node: str, numbers: Collection[int], to: str) -> list[int]:
        """Those of the node's partitions that are the other one's now."""
        if to not in self.leases:
            return []
        found = [number for number in numbers if self.owners[number] == node]
        for number in found:
            self.owners[number] = to
        self.moved += len(found)
        if found:
            self._owners = None
        return found

    def owned(self, node: str) -> list[int]:
        """What a node owns."""
        return [number for number, owner in enumerate(self.owners) if owner == node]

    def see_nodes(self) -> Nodes:
        if self._nodes is None:
            self._version += 1
            living = frozenset(self.leases)
            self._nodes = Nodes(
                self._version, living, tuple(sorted(living - self.late)), frozenset(self.late)
            )
        return self._nodes

    def see_owners(self) -> Owners:
        if self._owners is None:
            self._version += 1
            self._owners = Owners(self._version, tuple(self.owners))
        return self._owners
