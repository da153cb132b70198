"""When will it go, and why not yet: the same windows and turns, played forward on copies."""

from collections.abc import Iterator
from copy import copy
from heapq import heapify, heapreplace

import msgspec

from paceline.model.messages import NOBODY
from paceline.pacing.flows import Flow
from paceline.pacing.gates import Gate
from paceline.pacing.lane import Account, Lane
from paceline.pacing.quotas import Quota
from paceline.pacing.windows import NEVER, Window

STEPS = 20_000
"""Sends played forward one by one; beyond, the rate of the last of them is taken to go on."""


class Reason(msgspec.Struct, frozen=True):
    """One link in the chain of what a message waits for.

    `until` is the moment it ends at the earliest, None when only an event can tell; `ahead` how many
    messages go first.
    """

    kind: str
    text: str
    until: int | None = None
    ahead: int | None = None


class Place(msgspec.Struct, frozen=True):
    """A message's place: `index` messages of its own flow stand before it; `waiting` counts other flows."""

    index: int
    waiting: dict[int, int]


class _Player:
    """An account played forward: when its next sends start."""

    __slots__ = ("busy", "concurrency", "counters", "duration", "moment", "quotas", "windows")

    def __init__(self, account: Gate, now: int, duration: int) -> None:
        self.windows = [w.copy() for w in account.windows]
        self.duration = max(0, duration)
        self.concurrency = account.concurrency or 1 << 30
        self.moment = max(now, account.blocked_until)
        self.quotas = [copy(quota) for quota in account.quotas]
        for quota in self.quotas:
            quota.flying = 0
        ends = now + self.duration
        for window in self.windows:
            for _ in range(window.flying):
                window.finish(ends)
        self.busy = [ends] * min(account.flying, self.concurrency)
        self.counters: list[Window | Quota] = [*self.windows, *self.quotas]
        self._settle(now)

    def _settle(self, now: int) -> None:
        moment = max(self.moment, now)
        if len(self.busy) >= self.concurrency:
            moment = max(moment, min(self.busy))
        while True:
            opens = max((c.opens(moment) for c in self.counters), default=0)
            if opens <= moment:
                break
            moment = opens
        self.moment = moment

    def send(self) -> int:
        """The start of the next send; plays it."""
        start = self.moment
        ends = start + self.duration
        for window in self.windows:
            window.occupy(ends)
        for quota in self.quotas:
            quota.reserve(start)
            quota.settle(spent=True)
        if self.concurrency < 1 << 30:
            self.busy = [b for b in self.busy if b > start]
            self.busy.append(ends)
        self._settle(start)
        return start


def starts(accounts: list[Account], now: int, duration: int) -> Iterator[int]:
    """The moments at which these accounts together start their next sends, as far as limits decide."""
    players = [(p.moment, i, p) for i, p in enumerate(_Player(a, now, duration) for a in accounts)]
    if not players:
        return
    heapify(players)
    while True:
        _, index, player = players[0]
        yield player.send()
        heapreplace(players, (player.moment, index, player))


def moment_of(accounts: list[Account], ahead: int, now: int, duration: int) -> int | None:
    """When the send with `ahead` others before it starts; None when no account may send at all."""
    able = [a for a in accounts if not (a.stopped or a.paused)]
    if not able:
        return None
    first = last = now
    count = 0
    for count, last in enumerate(starts(able, now, duration)):
        if count == 0:
            first = last
        if count == ahead:
            return last
        if count == STEPS:
            break
    return round(last + (ahead - count) * (last - first) / count)


def ahead_of(flow: Flow, place: Place, flows: dict[int, Flow]) -> int:
    """How many messages of this and the other flows go before the one at `place`.

    Higher priorities go first; among equals a tenant waits for as many messages of each other tenant as it
    sends itself, and so do campaigns within the tenant.
    """
    key = flow.key
    higher = 0
    siblings: dict[str, int] = {}
    tenants: dict[str, int] = {}
    for number, count in place.waiting.items():
        other = flows.get(number)
        if other is None or number == flow.number:
            continue
        if other.key.priority > key.priority:
            higher += count
        elif other.key.priority == key.priority and other.key.tenant == key.tenant:
            siblings[other.key.campaign] = siblings.get(other.key.campaign, 0) + count
        elif other.key.priority == key.priority:
            tenants[other.key.tenant] = tenants.get(other.key.tenant, 0) + count
    own = place.index
    within = own + sum(min(count, own + (campaign == key.campaign)) for campaign, count in siblings.items())
    return higher + within + sum(min(count, within) for count in tenants.values())


def rivals(lane: Lane, flow: Flow) -> dict[int, Flow]:
    """The flows that share an account with this one: those pinned to the same account, and the pool's."""
    pinned = flow.key.account
    if pinned == NOBODY:
        return {n: f for n, f in lane.flows.items() if f.key.account == NOBODY}
    return {n: f for n, f in lane.flows.items() if f.key.account in (pinned, NOBODY)}


def senders(lane: Lane, flow: Flow) -> list[Account]:
    """The accounts that may send a message of this flow."""
    if flow.key.account == NOBODY:
        return list(lane.accounts.values())
    account = lane.accounts.get(flow.key.account)
    return [account] if account else []


def gate_reasons(gate: Gate, now: int) -> list[Reason]:
    """Why a gate is closed at `now`; empty when it is open."""
    found = []
    if gate.paused:
        found.append(Reason("paused", f"{gate.label} is paused", None))
    if gate.held:
        found.append(Reason("held", f"the history of {gate.label} is being read", None))
    if isinstance(gate, Account) and gate.stopped:
        found.append(Reason("stopped", f"{gate.label} was refused by the provider: {gate.stopped}", None))
    if gate.blocked_until > now:
        found.append(Reason("flood-wait", f"the provider asked {gate.label} to wait", gate.blocked_until))
    found += [_window_reason(gate, w, opens) for w in gate.windows if (opens := w.opens(now)) > now]
    found += [
        Reason("quota", f"{gate.label} has used its {q.maximum} of this {q.period}", opens)
        for q in gate.quotas
        if (opens := q.opens(now)) > now
    ]
    if gate.concurrency is not None and gate.flying >= gate.concurrency:
        found.append(
            Reason("concurrency", f"{gate.label} has {gate.flying} of {gate.concurrency} calls under way")
        )
    return found


def _window_reason(gate: Gate, window: Window, opens: int) -> Reason:
    until = opens if opens < NEVER else None
    return Reason("limit", f"limit {window.limit} of {gate.label}", until)


def moment_of_gate(gate: Gate, ahead: int, now: int, duration: int) -> int:
    """The earliest that a wider gate alone lets the message through, if everybody ahead passes it too."""
    if not gate.windows:
        return max(now, gate.blocked_until)
    player = _Player(gate, now, duration)
    last = first = player.send()
    for count in range(1, min(ahead, STEPS) + 1):
        last = player.send()
        if count == STEPS:
            return round(last + (ahead - count) * (last - first) / count)
    return last
