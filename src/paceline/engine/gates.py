"""From configured limits to gates with their true history: at start, and whenever a limit changes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from paceline.clock import Clock
from paceline.engine.directory import Directory
from paceline.engine.moves import Moves
from paceline.model.accounts import AccountSpec, QueueSpec
from paceline.model.errors import EndedError, PacelineError, UnavailableError
from paceline.model.messages import AccountNote, FlowKey
from paceline.pacing.agenda import Agenda
from paceline.pacing.gates import PAUSED, SharedGate
from paceline.pacing.lane import Account
from paceline.pacing.quotas import Quota, period_bounds
from paceline.pacing.scopes import EACH, Rule, channel_of
from paceline.pacing.windows import Spacing, Window
from paceline.stores.base import Occupancy, Store

EVERY = 1 << 40
"""More sends than any journal has."""
AWAY_S = 0.5
"""How long to wait before asking a store again that could not write."""


async def _nothing_to_write() -> None:
    """No call has ended where none is made."""


class Gates:
    """Keeps the agenda's gates in step with the directory.

    While the history of a gate is being read the gate is held shut, so nothing slips through in between.
    """

    def __init__(
        self, store: Store, agenda: Agenda, directory: Directory, clock: Clock, chance: Callable[[], float]
    ) -> None:
        """`chance` is the source of jitter. `moves` correct journal times after the wall clock was moved, and
        `written` waits until every send that ended is in the journal.
        """
        self._store, self._agenda, self._directory, self._clock = store, agenda, directory, clock
        self._chance = chance
        self.moves = Moves()
        self.apart = 0
        """By how many milliseconds journal times may be off that other nodes wrote."""
        self._since: dict[str, int] = {}
        self.keys: dict[int, FlowKey] = {}
        self.written: Callable[[], Awaitable[None]] = _nothing_to_write

    def account(self, id_: str) -> Account | None:
        """The account's gate."""
        spec = self._directory.accounts.get(id_)
        lane = self._agenda.lanes.get(spec.lane) if spec else None
        return lane.accounts.get(id_) if lane else None

    async def set_account(self, spec: AccountSpec) -> Account:
        """Add or change an account's gate, with its history."""
        # Who asked may go away; the gate must not stay shut for that.
        return await asyncio.shield(asyncio.ensure_future(self._set_account(spec)))

    async def _set_account(self, spec: AccountSpec) -> Account:
        known = self.account(spec.id)
        gate = self._shut(spec)
        while gate.held and self.account(spec.id) is gate:
            try:
                await self.written()  # the journal has to know of every send that the old windows counted
                if known is None:  # it may have been here before, in another pool too, and been told to wait
                    await self.restore_waits([spec])
                await self.restore([spec])
            except EndedError:
                raise  # its lane is another node's now
            except UnavailableError:
                # Held it waits for the store, as every hand-over has to; a gate without its history lets too much out.
                await asyncio.sleep(AWAY_S)
        self._agenda.touched(self._agenda.lane(spec.lane), gate)
        return gate

    def _shut(self, spec: AccountSpec) -> Account:
        """The account's gate with its new limits, held until its history is back."""
        lane = self._agenda.lane(spec.lane)
        gate = lane.accounts.get(spec.id)
        if gate is None:
            gate = Account(spec.id, spec.concurrency)
            gate.held = True
            lane.add_account(gate)
        gate.held = True
        # From here on endings reach the new windows themselves; the journal tells of those before.
        self._since[spec.id] = self._clock.ceiling()
        gate.concurrency = spec.concurrency
        gate.rule = spec.circuit
        if spec.circuit is None:
            gate.circuit = None
        self.apply_pause(gate, spec)
        windows: list[Window] = [Window(limit) for limit in spec.limits]
        if spec.interval_ms:
            windows.append(Spacing(spec.interval_ms, spec.jitter, self._chance))
        for window in windows:
            window.flying = gate.flying
        gate.windows = tuple(windows)
        gate.quotas = tuple(_quotas(spec))
        for quota in gate.quotas:
            quota.reserve_flying(gate.flying)
        return gate

    def apply_pause(self, gate: Account, spec: AccountSpec) -> None:
        """Close the gate if a person wants that, or if this process lacks the account's channel."""
        missing = spec.channel not in self._directory.channels
        gate.paused = spec.paused or not spec.enabled or missing
        gate.pause_text = f"waits: this process has no channel '{spec.channel}'" if missing else PAUSED

    def shut_all(self, specs: Iterable[AccountSpec]) -> None:
        """Make the gates of these accounts, held until `restore`."""
        for spec in specs:
            self._shut(spec)

    async def restore(self, specs: Iterable[AccountSpec]) -> None:
        """Fill the windows of these accounts from the journal and let them go."""
        specs = list(specs)
        now = self._clock.now()
        # After a move of the wall clock the newest by the journal's times need not be the newest: ask for all.
        need = [
            (spec.id, EVERY if self.moves.moves else most) for spec in specs if (most := _most_places(spec))
        ]
        spans = [w.span for spec in specs if (gate := self.account(spec.id)) for w in gate.windows]
        history: dict[str, list[int]] = {}
        if need and spans:
            since = now - max(spans) - self.moves.reach - self.apart
            for each in await self._store.occupancy(since, need):
                history.setdefault(each.account, []).append(each.finished)
        for spec in specs:
            gate = self.account(spec.id)
            if gate is None:
                continue
            since = self._since.pop(spec.id, now)
            ended = (self._ended(raw, since, now) for raw in history.get(spec.id, ()))
            finished = sorted(moment for moment in ended if moment is not None)
            for window in gate.windows:
                window.restore(
                    [f for f in finished[-window.maximum :] if f + window.span > now], window.flying
                )
            await self._restore_quotas(gate, now)
            gate.held = False

    async def restore_waits(self, specs: Iterable[AccountSpec]) -> list[AccountNote]:
        """Let these accounts wait as long as their providers asked; answers all that is noted of accounts."""
        notes = await self._store.notes()
        wanted, now = {spec.id for spec in specs}, self._clock.now()
        for note in notes:
            until = note.flood_until + self.apart if note.flood_until else 0
            if note.account not in wanted or until <= now:
                continue
            for kind, value in (("recipient", note.recipient), ("group", note.group)):
                if value:
                    self._agenda.block(note.account, kind, value, until)
            gate = self.account(note.account)
            if gate is not None and not note.recipient and not note.group:
                gate.block(until)
        return notes

    async def _restore_quotas(self, gate: Account, now: int) -> None:
        for quota in gate.quotas:
            first = period_bounds(now, quota.period, quota.zone)[0]
            used = await self._store.occupancy(first, [(gate.id, EVERY)])
            quota.restore(sum(each.spent for each in used), now)

    def _ended(self, finished: int, changed: int, now: int) -> int | None:
        """When a send of the journal ended; None where that was after `changed`, so that the windows heard of it.

        A journal time in the future means that the wall clock was set back: it ended by `changed` at the latest.
        After a move of the clock a time may be of several runs, and of another node one that is off; then a send rather
        counts twice than not at all, and rather late than early.
        """
        if changed < finished - self.apart <= now and not self.moves.moves:
            return None
        return min(self.moves.today(finished, changed) + self.apart, changed)

    def remove_account(self, spec: AccountSpec) -> None:
        """Take an account out of its lane; what is pinned to it waits in the store."""
        lane = self._agenda.lanes.get(spec.lane)
        if lane is not None:
            lane.remove_account(spec.id)

    # -- wide limits and queues

    async def set_rule(self, rule: Rule) -> None:
        """Add or replace a wide limit, with its history. While the store cannot write this waits for it.

        Where several nodes share the store it has the history, and the last word.
        """
        if self._agenda.scopes.sharing is not None:
            self._agenda.set_rule(rule)
            return
        await asyncio.shield(asyncio.ensure_future(self._set_rule(rule)))

    async def _set_rule(self, rule: Rule) -> None:
        self._agenda.hold()
        try:
            self._agenda.set_rule(rule)
            changed = self._clock.ceiling()
            while True:
                try:
                    await self.written()
                    await self.restore_rules([rule], changed)
                    break
                except EndedError:
                    raise
                except UnavailableError:
                    await asyncio.sleep(AWAY_S)
        except PacelineError:
            self._agenda.drop_rule(rule.name)  # without its history it would let too much through
            raise
        finally:
            self._agenda.let_go()

    async def restore_rules(self, rules: list[Rule], changed: int | None = None) -> None:
        """Fill the windows of wide limits from the journal, with the sends that ended by `changed`."""
        if not rules or self._agenda.scopes.sharing is not None:
            return
        now = self._clock.now()
        since = now - max(rule.limit.span_ms for rule in rules) - self.moves.reach - self.apart
        sends = await self._store.occupancy(since, None)
        if any(each.flow not in self.keys for each in sends):
            self.keys.update(await self._store.flow_keys())
        for each in sends:
            key = self.keys.get(each.flow)
            ended = self._ended(each.finished, now if changed is None else changed, now)
            if key is None or ended is None:
                continue
            for rule in rules:
                if rule.covers(key) and ended + rule.limit.span_ms > now:
                    self._occupy(rule, each, ended)
        for rule in rules:
            gate = self._agenda.scopes.gates.get(("limit", rule.name))
            if gate is not None:
                self._agenda.stir(gate)

    def _occupy(self, rule: Rule, each: Occupancy, finished: int) -> None:
        if rule.is_keyed:
            gate = self._agenda.scopes.keyed_gate(rule, each.recipient, each.group)
        else:
            gate = self._agenda.scopes.gates.get(("limit", rule.name))
        if gate is not None:
            gate.windows[0].occupy(finished)

    def drop_rule(self, name: str) -> None:
        """Remove a wide limit."""
        self._agenda.drop_rule(name)

    def set_queue(self, spec: QueueSpec) -> None:
        """Apply a queue's pause and concurrency."""
        scopes = self._agenda.scopes
        known = ("queue", spec.name) in scopes.gates
        if not known and spec.concurrency is None and not spec.paused:
            return  # a gate that never closes is not worth asking on each send
        gate = scopes.bound_queue(spec.name, spec.concurrency)
        gate.paused = spec.paused
        if not known:
            self._agenda.regate()
        self._agenda.stir(gate)

    def queue_gate(self, name: str) -> SharedGate | None:
        """The gate of a queue, if it has one."""
        return self._agenda.scopes.gates.get(("queue", name))


def _most_places(spec: AccountSpec) -> int:
    return max([limit.maximum for limit in spec.limits] + ([1] if spec.interval_ms else []), default=0)


def _quotas(spec: AccountSpec) -> list[Quota]:
    quota = spec.quota
    if quota is None:
        return []
    made = []
    if quota.day is not None:
        made.append(Quota(quota.day, "day", quota.zone))
    if quota.month is not None:
        made.append(Quota(quota.month, "month", quota.zone))
    return made


def rule_scope(rule: Rule) -> dict[str, object]:
    """The scope of a wide limit as JSON."""
    parts = {name: getattr(rule, name) for name in ("tenant", "queue", "channel", "recipient", "group")}
    named: dict[str, object] = {name: value for name, value in parts.items() if value}
    return named or {"global": True}


__all__ = ["EACH", "Gates", "channel_of", "rule_scope"]
