"""What the engine asks of a store that several nodes may share. One that a single process owns has none of it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from paceline.model.messages import FlowKey, HandedOver, Mark
from paceline.model.nodes import Node, Roll, Standing, Wake
from paceline.model.wide import Need, Told, Use, Wide
from paceline.stores.base import Document, FlowState


class Changed(msgspec.Struct, array_like=True, frozen=True):
    """A document that another node put, or removed (no body), with the number of that change."""

    kind: str
    tenant: str
    name: str
    body: str | None
    updated_at: int
    revision: int


class Handed(msgspec.Struct, frozen=True):
    """What became of hand-overs: `refused` are the ids of those that did not get all of their places, which took none.

    What is in neither list was not pending any more. `told` says more of the limits that refused. `stale`: nothing was
    done, since the wide limits are not those that the caller knows.
    """

    handed: list[HandedOver]
    refused: list[int]
    told: list[Told]
    stale: bool
    number: int = 0
    """Grows with each commit that refuses something."""


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

    async def hand_over(
        self,
        marks: Sequence[Mark],
        needs: Sequence[Sequence[Need]],
        revision: int,
        now: int,
        apart: int,
        heard: int = 0,
    ) -> Handed:
        """As `Store.hand_over`, with the places of wide limits that each takes, all or none; no `needs` for none.

        `revision` is that of the wide limits which the caller knows. A place is free by `now`; one that another node
        used last, by whose clock that is, `apart` ms later. `heard` is the `number` of the last answer that the caller knew
        when it chose these: a limit that refused something since then refuses them as well, so that nobody overtakes
        what was refused.
        """

    async def set_wide(
        self, limits: Sequence[Wide], dropped: Sequence[str], now: int, put: Sequence[Document] = (),
        removed: tuple[str, str, str] | None = None, after: int | None = None,
    ) -> tuple[int, bool]:  # fmt: skip
        """Set wide limits anew and drop those named, in one commit with the document (kind, tenant, name) that says so.

        What occupies places is taken from the journal and from what is under way, on all nodes. Answers the revision of
        wide limits, and whether there was what was to be removed. Given `after`, nothing is done unless that is the newest
        revision.

        Raises:
            InvalidError: a limit has more places than a store can keep.
            UnavailableError: another node is in the middle of a commit, and does not come to its end.
        """

    async def wide(self) -> tuple[int, list[Wide]]:
        """The wide limits by which hand-overs are judged, and their revision."""

    async def wide_use(self, names: Sequence[str], now: int) -> dict[str, Use]:
        """How much of these limits is used, of those that count everything together."""

    async def clean_places(self, free_before: int, most: int) -> bool:
        """Look at the next `most` recipients and groups that have places, and forget those whose places were all free by
        then; whether there are others behind them.
        """

    async def open_calls(self, partitions: Sequence[int]) -> list[HandedOver]:
        """`Store.processing` of these partitions."""

    async def flows(self, partitions: Sequence[int]) -> list[FlowState]:
        """`Store.flows` of these partitions."""

    async def keys_of(self, flows: Sequence[int]) -> dict[int, FlowKey]:
        """These flows, by number."""

    async def apart(self, since_ms: int) -> int:
        """By how many milliseconds times that other nodes wrote may be off, of those that were there `since_ms` ago."""

    async def roll(self, since_ms: int) -> Roll:
        """The nodes that live, and those that ended in the last so many milliseconds. Also of a store that is only looked at."""

    async def forget(self, before: int) -> int:
        """Forget nodes that ended before this moment; answers how many."""

    async def rejoin(self) -> None:
        """After this node was ended: become a new one, which owns nothing yet."""
