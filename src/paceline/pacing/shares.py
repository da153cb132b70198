"""Which partitions each node should have: even within one, with as few moves as that takes.

There is no leader. Every node works this out for itself from what all of them see, takes what is free and its own by
that, and offers what it has too much of. Where two of them see things at different moments one of them takes nothing,
or a partition moves once more than it had to; ownership itself is decided by the store.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

TOGETHER: Final = 8
"""So many partitions are given away at once: each pauses until the calls of all of them have ended."""


class Share(msgspec.Struct, frozen=True):
    """What one node should do: `take` these free partitions, and give each of `offers` (partition, node) away."""

    take: tuple[int, ...] = ()
    offers: tuple[tuple[int, str], ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What all of them should do: `takes` are (free partition, node), `moves` are (partition, from, to)."""

    takes: tuple[tuple[int, str], ...] = ()
    moves: tuple[tuple[int, str, str], ...] = ()


class Overdue:
    """For how many looks partitions have been lying free, as one node sees it.

    Whoever is to take one by the plan may be stopped, cut off or busy, or have died a moment ago, and the others see it
    only when its lease runs out; in a node whose event loop is blocked the lease does not even do that.
    """

    def __init__(self, look: float) -> None:
        """`look` is the longest time between two looks, in the unit of the moments that are handed in."""
        self._look = look
        self._since: dict[int, float] = {}

    def seen(self, owners: Sequence[str | None], now: float) -> dict[int, int]:
        """The partitions that somebody should have taken by now, each with the number of looks since."""
        free = [number for number, owner in enumerate(owners) if owner is None]
        self._since = {number: self._since.get(number, now) for number in free}
        waited = {number: int((now - since) / self._look) for number, since in self._since.items()}
        return {number: looks for number, looks in waited.items() if looks}


def share_of(
    me: str, owners: Sequence[str | None], senders: Collection[str], overdue: Mapping[int, int] | None = None
) -> Share:
    """The part of `me` in the common plan.

    `owners` names the owner of each partition by its number, None for nobody; `senders` are the nodes that live and
    send. What a node owns that is none of them is nobody's business here: it is freed when that node is ended.
    `overdue` is what `Overdue.seen` answers: with each look at which a partition still lies there twice as many nodes
    may take it, those first that own least.
    """
    if me not in senders:
        return Share()
    share = part_of(me, plan_of(owners, senders))
    more = [
        number for number, looks in (overdue or {}).items()
        if number not in share.take and me in helpers_of(number, looks, owners, senders)
    ]  # fmt: skip
    return Share((*share.take, *more), share.offers)


def part_of(me: str, plan: Plan) -> Share:
    """What a plan asks of one node."""
    return Share(
        tuple(number for number, node in plan.takes if node == me),
        tuple((number, to) for number, giver, to in plan.moves if giver == me),
    )


def plan_of(owners: Sequence[str | None], senders: Collection[str]) -> Plan:
    """The common plan: the same for all who see the same."""
    if not senders:
        return Plan()
    held = _held(owners, senders)
    room = _room(held, len(owners) - sum(owner is not None and owner not in held for owner in owners))
    free = [number for number, owner in enumerate(owners) if owner is None]
    givers = [(number, node) for node in sorted(held) for number in held[node][len(held[node]) + room[node] :]
              if room[node] < 0]  # fmt: skip
    takers = [node for node in sorted(held) for _ in range(max(0, room[node]))]
    taken = tuple(zip(free, takers, strict=False))
    moved = zip(givers, takers[len(taken) :], strict=False)
    return Plan(taken, tuple((number, giver, to) for (number, giver), to in moved))


def helpers_of(
    number: int, looks: int, owners: Sequence[str | None], senders: Collection[str]
) -> frozenset[str]:
    """Who may take a partition that has been overdue for so many looks: each partition begins at another node."""
    sizes = {node: len(numbers) for node, numbers in _held(owners, senders).items()}
    least = min(sizes.values())
    first = sorted(node for node in sizes if sizes[node] == least)
    begin = number % len(first)
    rest = sorted(node for node in sizes if sizes[node] > least)
    return frozenset((first[begin:] + first[:begin] + rest)[: 2**looks])


def next_gift(
    offers: Sequence[tuple[int, str]],
    mine: Collection[int],
    calls: Mapping[int, int],
    resting: Collection[int],
) -> tuple[frozenset[int], str]:
    """Which partitions to give away now, and to whom: to one node at a time, and those of `mine` that are least busy.

    `offers` is not empty. `calls` counts the calls under way in each partition; `resting` ones are left alone, because
    their calls took too long a while ago. Nothing may be left to give.
    """
    to = offers[0][1]
    most = min(TOGETHER, sum(whose == to for _, whose in offers))
    ready = sorted((n for n in mine if n not in resting), key=lambda number: (calls.get(number, 0), number))
    quiet = [number for number in ready[:most] if not calls.get(number, 0)]
    return frozenset(
        quiet or ready[:1]
    ), to  # one that is busy goes alone: the others would wait for its calls


def _held(owners: Sequence[str | None], senders: Collection[str]) -> dict[str, list[int]]:
    held: dict[str, list[int]] = {node: [] for node in senders}
    for number, owner in enumerate(owners):
        if owner in held:
            held[owner].append(number)
    return held


def _room(held: dict[str, list[int]], partitions: int) -> dict[str, int]:
    """How many more (or, below zero, fewer) each node should have. Who has most keeps one more where they differ."""
    least, more = divmod(partitions, len(held))
    by_size = sorted(held, key=lambda node: (-len(held[node]), node))
    return {node: least + (place < more) - len(held[node]) for place, node in enumerate(by_size)}
