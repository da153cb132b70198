"""Whose turn it is: strict between priorities; within one, tenants take turns, within a tenant its campaigns.

The flows of one campaign (different queues) take turns as well. A newcomer joins at the end of the round,
so it waits one round, not behind a backlog. Taking, dropping and joining cost the same at any size.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Generic, Protocol, TypeVar

from paceline.model.messages import FlowKey


class Keyed(Protocol):
    """What may take turns: a flow, or what waits on behalf of one."""

    @property
    def key(self) -> FlowKey:
        """Whose it is."""


M = TypeVar("M", bound=Keyed)


class _Ring(Generic[M]):
    """Members that take turns: the head is next. A member is another ring, or a flow at the bottom."""

    __slots__ = ("members", "name", "named")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: deque[_Ring[M] | M] = deque()
        self.named: dict[str, _Ring[M]] = {}

    def ring(self, name: str) -> _Ring[M]:
        found = self.named.get(name)
        if found is None:
            found = self.named[name] = _Ring(name)
            self.members.append(found)
        return found


class _Rotation(Generic[M]):
    """The rounds of two flows or more."""

    __slots__ = ("_levels", "_order")

    def __init__(self) -> None:
        self._levels: dict[int, _Ring[M]] = {}
        self._order: list[int] = []

    @property
    def priority(self) -> int:
        return self._order[-1]

    def join(self, flow: M) -> None:
        key = flow.key
        level = self._levels.get(key.priority)
        if level is None:
            level = self._levels[key.priority] = _Ring("")
            insort(self._order, key.priority)
        level.ring(key.tenant).ring(key.campaign).members.append(flow)

    def head(self) -> M:
        member: _Ring[M] | M = self._levels[self._order[-1]]
        while isinstance(member, _Ring):
            member = member.members[0]
        return member

    def served(self) -> None:
        ring: _Ring[M] | M = self._levels[self._order[-1]]
        while isinstance(ring, _Ring):
            members = ring.members
            head = members[0]
            if len(members) > 1:
                members.rotate(-1)
            ring = head

    def leave(self, *, served: bool) -> M:
        priority = self._order[-1]
        level = self._levels[priority]
        path = [level]
        member: _Ring[M] | M = level.members[0]
        while isinstance(member, _Ring):
            path.append(member)
            member = member.members[0]
        path[-1].members.popleft()
        for parent, child in zip(path[-2::-1], path[:0:-1], strict=True):
            if not child.members:
                parent.members.popleft()
                del parent.named[child.name]
            elif served and len(parent.members) > 1:
                parent.members.rotate(-1)
        if not level.members:
            del self._levels[priority]
            self._order.pop()
        return member


class Turns(Generic[M]):
    """The rotation of the flows that have a message to send."""

    __slots__ = ("_alone", "_many", "size")

    def __init__(self) -> None:
        """Nobody has work yet."""
        # Nearly every account has one flow at a time: that needs no rounds, which would cost three kilobytes.
        self._alone: M | None = None
        self._many: _Rotation[M] | None = None
        self.size = 0

    def __bool__(self) -> bool:
        """Whether any flow is in the rotation."""
        return self.size > 0

    @property
    def priority(self) -> int:
        """The priority of whoever is next; -1 when nobody is."""
        if self._many is not None:
            return self._many.priority
        return -1 if self._alone is None else self._alone.key.priority

    def join(self, flow: M) -> None:
        """A flow has work again: it joins at the end of its rounds."""
        self.size += 1
        if self.size == 1:
            self._alone = flow
            return
        if self._many is None:
            self._many = _Rotation()
            self._many.join(self._only())
            self._alone = None
        self._many.join(flow)

    def head(self) -> M:
        """The flow whose turn it is; there must be one."""
        return self._many.head() if self._many is not None else self._only()

    def served(self) -> None:
        """The head had its turn: it goes to the end of its round, and so do its campaign and its tenant."""
        if self._many is not None:
            self._many.served()

    def leave(self, *, served: bool) -> M:
        """Take the head out. When it was `served` first, its tenant and campaign also lose their turn."""
        if self._many is None:
            member = self._only()
            self._alone = None
        else:
            member = self._many.leave(served=served)
            if self.size == 1:
                self._many = None
        self.size -= 1
        return member

    def _only(self) -> M:
        if self._alone is None:
            raise IndexError("nobody is in the rotation")
        return self._alone
