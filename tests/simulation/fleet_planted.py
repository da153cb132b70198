"""Bugs put into the sharing of partitions on purpose, to see the simulation of fleets find them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paceline.pacing import shares
from paceline.pacing.shares import Plan
from tests.simulation.fleet_node import Node
from tests.simulation.fleet_store import Registry

Patch = tuple[Any, str, Any]


def _sends_without_a_lease() -> Patch:
    """A node sends what it owned until somebody tells it that it has ended."""
    return (Node, "_counted", lambda _self, asked: asked + 1e9)


def _decides_until_given() -> Patch:
    """What is being given away is sent on until the other one has it."""
    return (Node, "_close", lambda _self, _numbers: None)


def _follows_too_soon() -> Patch:
    """Nodes count as late when half of their lease is over."""
    expire = Registry.expire

    def wrong(self: Registry, node: str, now: float) -> None:
        expire(self, node, now + 2.6)

    return (Registry, "expire", wrong)


def _waits_for_the_one() -> Patch:
    """A free partition waits for the one node that the plan names, whether or not that one looks."""
    return (shares.Overdue, "seen", lambda _self, _owners, _now: {})


def _no_memory_of_who_has_most() -> Patch:
    """Who keeps one more goes by name: every node that comes moves partitions of others."""

    def wrong(held: dict[str, list[int]], partitions: int) -> dict[str, int]:
        least, more = divmod(partitions, len(held))
        return {node: least + (place < more) - len(held[node]) for place, node in enumerate(sorted(held))}

    return (shares, "_room", wrong)


def _offers_by_an_old_view() -> Patch:
    """What was given away after a node looked is given away again, as something else."""
    return (Node, "is_current", lambda _self, _owners: True)


def _everybody_takes() -> Patch:
    """Whoever sees something free takes it."""

    def wrong(owners: Sequence[str | None], senders: Sequence[str]) -> Plan:
        made = plan_of(owners, senders)
        free = [number for number, owner in enumerate(owners) if owner is None]
        return Plan(tuple((number, node) for node in senders for number in free), made.moves)

    plan_of = shares.plan_of
    return (shares, "plan_of", wrong)


PLANTED: dict[str, Callable[[], Patch]] = {
    name.removeprefix("_").replace("_", "-"): patch
    for name, patch in list(globals().items())
    if name.startswith("_") and callable(patch) and getattr(patch, "__module__", "") == __name__
}
"""Every bug by its name."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """With this bug in it."""
    target, attribute, wrong = PLANTED[name]()
    right = getattr(target, attribute)
    setattr(target, attribute, wrong)
    try:
        yield
    finally:
        setattr(target, attribute, right)
