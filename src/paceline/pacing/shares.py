"""Which partitions each node should have: even within one, with as few moves as that takes.

There is no leader. Every node works this out for itself from what all of them see, takes what is free and its own by
that, and offers what it has too much of. Where two of them see things at different moments one of them takes nothing,
or a partition moves once more than it had to; ownership itself is decided by the store.
"""

from collections.abc import Sequence

import msgspec


class Share(msgspec.Struct, frozen=True):
    """What one node should do: `take` these free partitions, and give each of `offers` (partition, node) away."""

    take: tuple[int, ...] = ()
    offers: tuple[tuple[int, str], ...] = ()


def share_of(me: str, owners: Sequence[str | None], senders: Sequence[str]) -> Share:
    """The part of `me` in the common plan.

    `owners` names the owner of each partition by its number, None for nobody; `senders` are the nodes that live and
    send. What a node owns that is none of them is nobody's business here: it is freed when that node is ended.
    """
    if me not in senders:
        return Share()
    held = _held(owners, senders)
    room = _room(held, len(owners) - sum(owner is not None and owner not in held for owner in owners))
    free = [number for number, owner in enumerate(owners) if owner is None]
    givers = [(number, node) for node in sorted(held) for number in held[node][len(held[node]) + room[node] :]
              if room[node] < 0]  # fmt: skip
    takers = [node for node in sorted(held) for _ in range(max(0, room[node]))]
    taken = list(zip(free, takers, strict=False))
    moved = list(zip(givers, takers[len(taken) :], strict=False))
    return Share(
        tuple(number for number, node in taken if node == me),
        tuple((number, to) for (number, giver), to in moved if giver == me),
    )


def _held(owners: Sequence[str | None], senders: Sequence[str]) -> dict[str, list[int]]:
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
