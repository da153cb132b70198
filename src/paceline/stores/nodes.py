"""What the engine asks of a store that several nodes may share. One that a single process owns has none of it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from paceline.model.messages import FlowKey, HandedOver
from paceline.model.nodes import Node, Standing, Wake
from paceline.stores.base import Document, FlowState


class Changed(msgspec.Struct, array_like=True, frozen=True):
    """A document that another node put, or removed (no body), with the number of that change."""

    kind: str
    tenant: str
    name: str
    body: str | None
    updated_at: int
    revision: int


class NodeStore(Protocol):
    """The part of a store that is about its nodes. Calls that ask or write raise `UnavailableError` as the store does,
    and `EndedError` once this node was ended.
    """

    @property
    def id(self) -> str:
        """This node, until the next `rejoin`."""

    @property
    def slot(self) -> int:
        """Its number among those that live, which ids carry."""

    @property
    def owned(self) -> frozenset[int]:
        """The partitions of this node: only of their messages do `promote` and `expire` tell."""

    def may_send(self) -> bool:
        """Whether a call may begin at this moment: the lease holds."""

    def watch(self, now: Callable[[], float], ring: Callable[[], None]) -> None:
        """From now on call `ring` when there is something to look at, and compare the clock `now`, in milliseconds."""

    async def time_ahead(self, now: Callable[[], float]) -> float:
        """How many milliseconds the store's clock is ahead of `now`."""

    async def standing(self) -> Standing:
        """How things stand between the nodes."""

    async def end(self, node: Node) -> bool:
        """End a node that has lapsed; whether it was. It writes nothing after this, and what it owned is free."""

    async def take(self, partitions: Sequence[int]) -> list[int]:
        """Take those of the partitions that are free; answers them."""

    async def give(self, partitions: Sequence[int], to: str) -> list[int]:
        """Give partitions to another node; answers those that are its own now."""

    async def woken(self) -> list[Wake]:
        """Take the word that other nodes left for this node's partitions, one for each flow."""

    async def changed(self, since: int) -> list[Changed]:
        """What other nodes did to documents after the revision `since`, in order."""

    async def put_alone(self, documents: Sequence[Document]) -> None:
        """Put documents that hold only while no other node sends.

        Raises:
            ConflictError: another one may send; nothing was put.
        """

    async def open_calls(self, partitions: Sequence[int]) -> list[HandedOver]:
        """`Store.processing` of these partitions."""

    async def flows(self, partitions: Sequence[int]) -> list[FlowState]:
        """`Store.flows` of these partitions."""

    async def keys_of(self, flows: Sequence[int]) -> dict[int, FlowKey]:
        """These flows, by number."""

    async def apart(self, since_ms: int) -> int:
        """By how many milliseconds times that other nodes wrote may be off, of those that were there `since_ms` ago."""

    async def forget(self, before: int) -> int:
        """Forget nodes that ended before this moment; answers how many."""

    async def rejoin(self) -> None:
        """After this node was ended: become a new one, which owns nothing yet."""
