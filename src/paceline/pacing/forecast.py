"""When will it go, and why not yet: the same windows and turns, played forward on copies."""

from collections.abc import Sequence

import msgspec

from paceline.model.checks import print_time
from paceline.model.messages import NOBODY
from paceline.pacing.circuit import Circuit
from paceline.pacing.flows import Flow
from paceline.pacing.gates import Gate, SharedGate
from paceline.pacing.lane import Account, Lane
from paceline.pacing.schedule import Schedule
from paceline.pacing.scopes import AFTER_CRASH
from paceline.pacing.windows import NEVER, Window


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


def moment_of(accounts: Sequence[Account], ahead: int, now: int, duration: int) -> int | None:
    """When the send with `ahead` others before it starts; None when no account may send at all."""
    return Schedule(able(accounts), now, duration).at(ahead)


def able(accounts: Sequence[Account]) -> list[Account]:
    """Those that will send again without anybody doing something about them."""
    return [a for a in accounts if not (a.stopped or a.paused)]


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
    return {**lane.pinned.get(flow.key.account, {}), **lane.pinned.get(NOBODY, {})}


def senders(lane: Lane, flow: Flow) -> list[Account]:
    """The accounts that may send a message of this flow."""
    if flow.key.account == NOBODY:
        return list(lane.accounts.values())
    account = lane.accounts.get(flow.key.account)
    return [account] if account else []


def gate_reasons(gate: Gate, now: int) -> list[Reason]:
    """Why a gate is closed at `now`; empty when it is open."""
    if isinstance(gate, SharedGate) and gate.key[0] == AFTER_CRASH:
        return [Reason("after-crash", gate.label)] if gate.opens(now) > now else []
    found = []
    if gate.paused:
        found.append(Reason("paused", f"{gate.label} {gate.pause_text}", None))
    if gate.held:
        found.append(Reason("held", f"the history of {gate.label} is being read", None))
    if isinstance(gate, Account) and gate.stopped:
        found.append(Reason("stopped", f"{gate.label} was refused by the provider: {gate.stopped}", None))
    if gate.blocked_until > now:
        text = f"the provider asked {gate.label} to wait"
        if gate.asked_until > gate.blocked_until:
            text += f" until {print_time(gate.asked_until)}; no wait is longer than longest_wait"
        found.append(Reason("flood-wait", text, gate.blocked_until))
    if isinstance(gate, Account) and gate.circuit is not None:
        found += _circuit_reasons(gate, gate.circuit, now)
    found += [
        _window_reason(gate, w, opens) for w in gate.windows if (opens := w.known(now)) > now and w.span
    ]
    found += [
        Reason("quota", f"{gate.label} has used its {q.maximum} of this {q.period}", opens)
        for q in gate.quotas
        if (opens := q.opens(now)) > now
    ]
    if gate.concurrency is not None and (used := _under_way(gate, now)) >= gate.concurrency:
        found.append(Reason("concurrency", f"{gate.label} has {used} of {gate.concurrency} calls under way"))
    return found


def _under_way(gate: Gate, now: int) -> int:
    """Calls under way, on other nodes too as far as they are known."""
    return max([gate.flying, *(w.used(now) for w in gate.windows if not w.span)])


def _circuit_reasons(gate: Account, circuit: Circuit, now: int) -> list[Reason]:
    opens = circuit.opens()
    if opens <= now:
        return []
    why = f"{gate.label} found its provider down ({circuit.code})"
    if not circuit.is_probing:
        text = f"{why} and starts slowly: {circuit.flying} of {circuit.allowed} calls under way"
        return [Reason("slow-start", text)]
    if opens == NEVER:
        return [Reason("circuit-open", f"{why} and tries one message")]
    return [Reason("circuit-open", f"{why} and rests", opens)]


def _window_reason(gate: Gate, window: Window, opens: int) -> Reason:
    until = opens if opens < NEVER else None
    return Reason("limit", f"limit {window.limit} of {gate.label}", until)


def moment_of_gate(gate: Gate, ahead: int, now: int, duration: int) -> int:
    """The earliest that a wider gate alone lets the message through, if everybody ahead passes it too."""
    return Schedule([gate], now, duration).at(ahead) or now
