"""Limits wider than an account: everything, a tenant, a queue, a channel, each recipient, each group.

A rule says which messages it covers; a gate counts them. Rules for every recipient or every group have one
gate for each of them, made when it is first needed and forgotten when it is idle.
"""

from collections.abc import Callable

import msgspec

from paceline.model.limits import Limit
from paceline.model.messages import Entry, FlowKey
from paceline.pacing.gates import WAIT, SharedGate
from paceline.pacing.places import SharedWindow, Sharing
from paceline.pacing.windows import Window

EACH = "*"
AFTER_CRASH = "after a crash"
"""The scope of the two gates that keep suspects of a crash apart."""
SWEEP = 50_000
"""Gates made on demand that may pile up before the idle ones are looked for."""


class Rule(msgspec.Struct, frozen=True):
    """A wide limit: the conditions that are set must all hold; `recipient` or `group` count each one apart.

    `recipient` and `group` are EACH or one value; the other conditions are one value, or empty for any.
    """

    name: str
    limit: Limit
    tenant: str = ""
    queue: str = ""
    channel: str = ""
    recipient: str = ""
    group: str = ""

    @property
    def is_keyed(self) -> bool:
        """Whether the gate depends on the single message, not only on its flow."""
        return bool(self.recipient or self.group)

    def covers(self, key: FlowKey) -> bool:
        """Whether messages of this flow may fall under the rule."""
        return (
            self.tenant in ("", key.tenant)
            and self.queue in ("", key.queue)
            and self.channel in ("", channel_of(key))
        )


def place_name(kind: str, name: str) -> str:
    """How the places of a wide limit, or of a queue's concurrency, are named in a store that several nodes share."""
    return f"{kind}/{name}"


def channel_of(key: FlowKey) -> str:
    """The channel of a flow's lane."""
    return key.lane.split("/")[1]


class Scopes:
    """All wide limits, the pauses of queues, tenants and campaigns, and waits of one recipient or group."""

    def __init__(self, now: Callable[[], int] | None = None) -> None:
        """No limits yet. `now` is only used to find idle gates."""
        self.rules: dict[str, Rule] = {}
        # Set where several nodes share the limits: then the store has the last word about each place.
        self.sharing: Sharing | None = None
        self.gates: dict[tuple[str, str], SharedGate] = {}
        self.single: dict[tuple[str, str], SharedGate] = {}
        self.waits = False
        # Milliseconds from the clock that decides to the wall clock, by which messages expire.
        self.wall_ahead = 0
        # Messages that were under way at several crashes go one at a time; at first, nothing goes beside them.
        self.suspects: set[int] = set()
        self.one_by_one = SharedGate((AFTER_CRASH, "suspects"), concurrency=1)
        self.one_by_one.label = "messages that were under way at two crashes are tried one at a time"
        self.others = SharedGate((AFTER_CRASH, "others"))
        self.others.label = (
            "messages that were under way at two crashes are tried first, alone, for some seconds"
        )
        self._sweep_at = SWEEP
        self._now = now or (lambda: 0)

    def standing_gate(self, scope: str, name: str) -> SharedGate:
        """The gate for pausing or bounding a queue, tenant, campaign: made on first use."""
        key = (scope, name)
        gate = self.gates.get(key)
        if gate is None:
            gate = self.gates[key] = SharedGate(key)
        return gate

    def set_rule(self, rule: Rule) -> SharedGate | None:
        """Add a rule; answers its gate, empty of history, unless it counts recipients or groups apart."""
        self.rules[rule.name] = rule
        if rule.is_keyed:
            return None
        gate = SharedGate(("limit", rule.name), (self._window(rule.limit, keyed=False),))
        if self.sharing is not None:
            gate.need = (place_name("limit", rule.name), "")
        self.gates[gate.key] = gate
        return gate

    def drop_rule(self, name: str) -> list[SharedGate]:
        """Remove a rule; answers its gates, now without windows, whose lines have to be let go."""
        self.rules.pop(name, None)
        gates = [self.single.pop(key) for key in [key for key in self.single if key[0] == f"limit {name}"]]
        gate = self.gates.pop(("limit", name), None)
        if gate is not None:
            gates.append(gate)
        for each in gates:
            each.windows, each.need = (), None
        return gates

    def of_flow(self, key: FlowKey) -> tuple[tuple[SharedGate, ...], bool]:
        """The gates that every message of a flow passes, and whether single ones may have more."""
        found = [
            gate
            for gate_key in (
                ("queue", key.queue),
                ("tenant", key.tenant),
                ("campaign", f"{key.tenant}/{key.campaign}"),
            )
            if (gate := self.gates.get(gate_key)) is not None
        ]
        keyed = self.waits or bool(self.suspects)
        for rule in self.rules.values():
            if rule.covers(key):
                if rule.is_keyed:
                    keyed = True
                else:
                    found.append(self.gates["limit", rule.name])
        return tuple(found), keyed

    def keyed(self, key: FlowKey, account_id: str, entry: Entry) -> tuple[SharedGate, ...]:
        """The gates of one message's recipient and group."""
        if len(self.single) >= self._sweep_at:
            self._sweep()  # here, where nobody holds a gate that is still idle
        found: list[SharedGate] = []
        if entry.id in self.suspects:
            found.append(self.one_by_one)
        elif self.others.paused:
            found.append(self.others)
        found += self._waits(account_id, entry)
        for rule in self.rules.values():
            if rule.is_keyed and rule.covers(key):
                gate = self.keyed_gate(rule, entry.recipient, entry.group)
                if gate is not None:
                    found.append(gate)
        return tuple(found)

    def told_to_wait(self, account_id: str, entry: Entry, now: int) -> bool:
        """Whether the provider asked this account to wait with the recipient or the group of this message."""
        return any(gate.blocked_until > now for gate in self._waits(account_id, entry))

    def _waits(self, account_id: str, entry: Entry) -> list[SharedGate]:
        found = []
        for kind, value in (("recipient", entry.recipient), ("group", entry.group)):
            if value:
                gate = self.single.get((f"{WAIT}{account_id} {kind}", value))
                if gate is not None:
                    found.append(gate)
        return found

    def keyed_gate(self, rule: Rule, recipient: str, group: str | None) -> SharedGate | None:
        """The gate of a rule for one recipient or group, made on first use; None where the rule does not apply."""
        pairs = ((rule.recipient, recipient), (rule.group, group or ""))
        for wanted, value in pairs:
            if wanted and (not value or wanted not in (EACH, value)):
                return None
        name = "\x00".join(value for wanted, value in pairs if wanted)
        gate = self._single((f"limit {rule.name}", name), rule.limit)
        if self.sharing is not None and gate.need is None:
            gate.need = (place_name("limit", rule.name), name)
        return gate

    def block(self, account_id: str, kind: str, value: str, until: int) -> SharedGate:
        """The provider asked to wait with one recipient or group on this account."""
        self.waits = True
        gate = self._single((f"{WAIT}{account_id} {kind}", value), None)
        gate.block(until)
        return gate

    def _single(self, key: tuple[str, str], limit: Limit | None) -> SharedGate:
        gate = self.single.get(key)
        if gate is None:
            gate = self.single[key] = SharedGate(key, (self._window(limit, keyed=True),) if limit else ())
        return gate

    def _window(self, limit: Limit, *, keyed: bool) -> Window:
        return Window(limit) if self.sharing is None else SharedWindow(limit, self.sharing, keyed=keyed)

    def bound_queue(self, name: str, concurrency: int | None) -> SharedGate:
        """The gate of a queue, with so many calls under way at most from now on."""
        gate = self.standing_gate("queue", name)
        changed = gate.concurrency != concurrency
        gate.concurrency = concurrency
        if self.sharing is not None and changed:
            gate.windows, gate.need = (), None
            if concurrency is not None:
                window = SharedWindow(Limit(concurrency, 0), self.sharing)
                window.flying = gate.flying
                gate.windows, gate.need = (window,), (place_name("queue", name), "")
        return gate

    def _sweep(self) -> None:
        now = self._now()
        for key in [key for key, gate in self.single.items() if gate.idle(now)]:
            del self.single[key]
        # Those in use stay: look again when their number has doubled, so that a sweep costs little for each.
        self._sweep_at = max(SWEEP, 2 * len(self.single))
