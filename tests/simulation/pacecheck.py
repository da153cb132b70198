"""Rules 5, 6 and 7 judged from outside: by what the provider saw and by what was configured, never by the product's windows."""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paceline.model.accounts import AccountSpec
from paceline.model.limits import Limit
from paceline.model.outcomes import Outcome, RateLimited
from paceline.pacing.scopes import Rule
from tests.simulation.circuits import CircuitCheck
from tests.simulation.provider import Arrival, Call
from tests.simulation.tables import Kept
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.node import Node

PROMPT_US = 10_000
FLOOD_MS = 60_000
LONGEST_US = 120_000_000
"""Longer than every window of a simulated limit: older arrivals are forgotten."""


class Seen:
    """The arrivals that one limit counts, as (moment, moment of the release)."""

    __slots__ = ("arrivals",)

    def __init__(self) -> None:
        self.arrivals: deque[tuple[int, int]] = deque()

    def add(self, us: int, released: int) -> None:
        """One more."""
        self.arrivals.append((us, released))
        while self.arrivals[0][0] < us - LONGEST_US:
            self.arrivals.popleft()

    def exceeds(self, limit: Limit, since: int) -> int:
        """How many arrived in the window that ends now, if that is too many and the last of them to be decided
        was decided when the limit was in force; else 0.
        """
        first = self.arrivals[-1][0] - limit.span_ms * 1000
        count, latest = 0, 0
        for us, released in reversed(self.arrivals):
            if us <= first:
                break
            count += 1
            latest = max(latest, released)
        return count if count > limit.maximum and latest >= since else 0


class PaceCheck:
    """What the provider may see, and how soon it should."""

    def __init__(self, world: World) -> None:
        """Nothing is configured, nothing has arrived."""
        self.world = world
        self.circuits = CircuitCheck(world)
        self.specs: dict[str, tuple[AccountSpec, int]] = {}
        self.rules: dict[str, tuple[Rule, int]] = {}
        self.known = self.specs  # as they were last in force
        self.floods: dict[tuple[str, str, str], int] = {}
        self.durable_floods: dict[tuple[str, str, str], int] = {}
        self.released: dict[tuple[int, int], int] = {}
        self.calm_since: int | None = None
        self.prompt = True
        self.changed: defaultdict[str, int] = defaultdict(int)
        self.eligible: dict[int, int] = {}
        self._by_account: defaultdict[str, Seen] = defaultdict(Seen)
        self._by_rule: defaultdict[tuple[str, ...], Seen] = defaultdict(Seen)
        self._flying: defaultdict[str, int] = defaultdict(int)
        self._ends: defaultdict[str, list[int]] = defaultdict(list)

    # -- what is in force

    def force(self, node: "Node") -> None:
        """The limits in force from now on, as far as they were not known."""
        now = self.world.time.us
        directory = node.core.directory
        known = self.specs
        self.specs = {
            id_: known[id_] if id_ in known and known[id_][0] == spec else (spec, now)
            for id_, spec in directory.accounts.items()
        }
        for id_, pair in self.specs.items():
            if known.get(id_) is not pair:
                self.changed[id_] = now
        self.circuits.force(set(self.specs), set(self.known))
        self.known = self.specs
        rules = self.rules
        self.rules = {
            name: rules[name] if name in rules and rules[name][0] == rule else (rule, now)
            for name, rule in directory.rules.items()
        }
        self.changed["rules"] = now

    def unsettle(self) -> None:
        """Something is being changed: nothing is known until `force`."""
        self.specs, self.rules = {}, {}
        self.circuits.unsettle()

    # -- rule 5

    def arrived(self, arrival: Arrival, kept: Kept) -> None:
        """Count it in every limit that covers it."""
        number = self.released.get((kept.row.id, arrival.number), 0)
        seen = self._by_account[arrival.account]
        seen.add(arrival.us, number)
        spec, since = self.specs.get(arrival.account, (None, 0))
        if spec is not None:
            limits = list(spec.limits) + ([Limit(1, spec.interval_ms)] if spec.interval_ms else [])
            for limit in limits:
                if count := seen.exceeds(limit, since):
                    self.world.wrong(5, f"{count} arrivals in a window of {limit} of {arrival.account}")
        row = kept.row
        place = {"tenant": row.tenant, "queue": row.queue, "channel": row.channel}
        for name, (rule, since) in self.rules.items():
            if any(getattr(rule, part) not in ("", value) for part, value in place.items()):
                continue
            key = _keyed(rule, arrival.recipient, row.group or "")
            if key is None:
                continue
            counted = self._by_rule[name, str(rule), *key]
            counted.add(arrival.us, number)
            if count := counted.exceeds(rule.limit, since):
                self.world.wrong(5, f"{count} arrivals in a window of {rule.limit} of limit {name} {key}")

    # -- rule 7

    def answered(self, node: "Node", call: Call, kept: Kept, outcome: Outcome | None) -> None:
        """The process heard; what it was told counts from here on."""
        self._flying[call.account] -= 1
        finished = node.clock.ceiling()
        self._ends[call.account].append(node.clock.true_us(finished))
        spec = node.core.directory.accounts.get(call.account)
        self.circuits.answered(node, call, kept, outcome, spec.concurrency if spec is not None else 1)
        if isinstance(outcome, RateLimited):
            wait = FLOOD_MS if outcome.wait_ms is None else outcome.wait_ms
            key = _flood_key(call.account, outcome.scope, call.recipient, kept.row.group)
            self.floods[key] = max(self.floods.get(key, 0), node.clock.true_us(finished + wait))

    def begins(self, node: "Node", call: Call, kept: Kept) -> None:
        """A call is made: it must not be inside a wait, and should not come late."""
        account, now = call.account, self.world.time.us
        waits = [self.floods.get(key, 0) for key in _flood_keys(account, call.recipient, kept.row.group)]
        if max(waits) > now:
            self.world.wrong(7, f"{account} calls {(max(waits) - now) / 1000:.1f} ms before its wait is over")
        if self.calm_since is not None and self.prompt:
            self._check_prompt(node, call, kept, max(waits))
        self._flying[account] += 1
        self.circuits.begins(call)

    def died(self) -> None:
        """Only what was durable is known any more."""
        self.floods = dict(self.durable_floods)
        self.circuits.died()

    def started(self, us: int, in_hand: Iterable[str]) -> None:
        """What was in hand when the process died ended by now, as far as anybody can know, called for or not."""
        for account in in_hand:
            self._ends[account].append(us)
        self._flying.clear()

    # -- rule 6

    def _check_prompt(self, node: "Node", call: Call, kept: Kept, waited: int) -> None:
        account, now = call.account, self.world.time.us
        spec, _ = self.specs.get(account, (None, 0))
        eligible = self.eligible.get(kept.row.id)
        if (
            spec is None
            or eligible is None
            or self.rules
            or spec.quota
            or node.core.directory.queue(kept.row.queue).concurrency
        ):
            return
        assert self.calm_since is not None
        opened = max(
            eligible,
            waited,
            self.calm_since,
            self.changed[account],
            self._open_since(spec, account),
            self.circuits.opens(account),
        )
        slack = (
            PROMPT_US
            + 3 * node.disk.slowest_us
            + 20 * node.loop.cost_us
            + (2000 if node.loop.coarse else 1000)
        )
        if now - opened > slack:
            self.world.wrong(6, f"{account} calls {(now - opened) / 1000:.1f} ms after it could")

    def _open_since(self, spec: AccountSpec, account: str) -> int:
        """Since when, at the latest, the account's own limits let this call through."""
        flying = self._flying[account]
        moment = 0
        ends = sorted(self._ends[account][-100:], reverse=True)
        if spec.concurrency is not None and 0 <= (place := spec.concurrency - 1 - flying) < len(ends):
            moment = ends[
                place
            ]  # until then the places were taken by those that ended since and those that run
        spans = [(limit.maximum, limit.span_ms * 1000) for limit in spec.limits]
        if spec.interval_ms:
            spans.append((1, round(spec.interval_ms * 1000 * (1 + spec.jitter))))
        for maximum, span in spans:
            place = maximum - 1 - flying
            if 0 <= place < len(ends):
                moment = max(moment, ends[place] + span)
        return moment


def _keyed(rule: Rule, recipient: str, group: str) -> tuple[str, ...] | None:
    key = []
    for wanted, value in ((rule.recipient, recipient), (rule.group, group)):
        if wanted:
            if not value or wanted not in ("*", value):
                return None
            key.append(value)
    return tuple(key)


def _flood_key(account: str, scope: str, recipient: str, group: str | None) -> tuple[str, str, str]:
    if scope == "account":
        return account, "", ""
    if scope == "group" and group:
        return account, "group", group
    return account, "recipient", recipient


def _flood_keys(account: str, recipient: str, group: str | None) -> list[tuple[str, str, str]]:
    keys = [(account, "", ""), (account, "recipient", recipient)]
    return [*keys, (account, "group", group)] if group else keys
