"""Why a message waits and when it will go: asked of the same gates and turns that decide.

What is answered is told by the wall clock as it stands now, whether or not it was set since the start.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from paceline.clock import Clock
from paceline.engine.figures import Figures
from paceline.model.checks import print_time
from paceline.model.messages import NOBODY, Entry, FlowKey, NewMessage
from paceline.model.states import State
from paceline.pacing import forecast
from paceline.pacing.agenda import Agenda
from paceline.pacing.flows import Flow
from paceline.pacing.forecast import Place, Reason
from paceline.pacing.gates import SharedGate
from paceline.pacing.lane import Lane
from paceline.pacing.schedule import Schedule
from paceline.pacing.windows import NEVER
from paceline.stores.base import Store, StoredMessage

QUICK_STEPS = 512
"""Sends played forward for the answer to a sender; beyond, the slowest limit tells."""
FRESH_MS = 100
"""How long such a forecast serves the next senders as well."""
KEPT = 1000
_SCHEDULED = int(State.SCHEDULED)
_ENDLESS = ("held", "paused", "stopped", "no-account", "elsewhere")


class Outlook:
    """Answers for waiting messages."""

    def __init__(self, store: Store, agenda: Agenda, clock: Clock, figures: Figures) -> None:
        """`figures` tell how long a send takes."""
        self._store, self._agenda, self._clock, self._figures = store, agenda, clock, figures
        self.pending: dict[int, int] = {}
        self.owns: Callable[[int], bool] = lambda _flow: True
        self.running = True
        self.held: Reason | None = None
        self._kept: dict[str, tuple[int, Schedule]] = {}

    async def of(self, row: StoredMessage, key: FlowKey) -> tuple[int | None, list[Reason]]:
        """The moment it goes (None when nobody can tell) and the chain of reasons."""
        return self._by_wall(*await self._of(row, key))

    async def _of(self, row: StoredMessage, key: FlowKey) -> tuple[int | None, list[Reason]]:
        state = State(row.state)
        if state is State.PROCESSING:
            return row.started_at or self._clock.now(), []
        if state not in (State.PENDING, State.SCHEDULED, State.RETRYING):
            return None, []
        # Asked for first: whatever is looked at after it has to be of one moment, that of the answer.
        index = await self._store.ahead(row.flow, row.turn, row.id) if state is State.PENDING else 0
        release = self._agenda.out.get(row.id)
        if release is not None:  # it is being handed over: the place it has taken is its own
            return max(self._clock.now(), release.start_at), []
        entry = Entry(row.turn, row.id, row.expires_at, row.recipient, row.group)
        return self.forecast(row.flow, key, state, self._due(state, row.due_at), index, entry)

    def _due(self, state: State, due_at: int) -> int:
        """When it is due on the scale of the clock that decides: scheduled ones wait for the wall clock."""
        return due_at - self._clock.ahead() if state is State.SCHEDULED else due_at

    def _by_wall(self, eta: int | None, reasons: list[Reason]) -> tuple[int | None, list[Reason]]:
        ahead = self._clock.ahead()
        if not ahead:
            return eta, reasons
        told = [r if r.until is None else replace(r, until=r.until + ahead) for r in reasons]
        return None if eta is None else eta + ahead, told

    def first(self, row: NewMessage, key: FlowKey) -> tuple[int | None, list[Reason]]:
        """For a message that was just taken in: quick, because every sender gets it with the answer."""
        sending = self.running and self.held is None
        if sending and row.state == _SCHEDULED:
            return row.due_at, [Reason("scheduled", "it is scheduled for later", row.due_at)]
        return self._by_wall(*self._first(row, key, sending=sending))

    def _first(self, row: NewMessage, key: FlowKey, *, sending: bool) -> tuple[int | None, list[Reason]]:
        due_at = self._due(State(row.state), row.due_at)
        index = max(0, self.pending.get(row.flow, 1) - 1)
        if not index and sending and self._goes_at_once(row.flow, key):
            return self._clock.now(), []
        return self.forecast(row.flow, key, State(row.state), due_at, index)

    def _goes_at_once(self, number: int, key: FlowKey) -> bool:
        """Alone in its flow, its account open and free of other work, and no wider gate to pass."""
        lane = self._agenda.lanes.get(key.lane)
        if lane is None:
            return False
        account, flow = lane.accounts.get(key.account), lane.flows.get(number)
        if account is None or flow is None or flow.gates or flow.keyed:
            return False
        return account.turns.size <= 1 and not lane.turns and account.opens(self._clock.now()) == 0

    def forecast(
        self, number: int, key: FlowKey, state: State, due_at: int, index: int, entry: Entry | None = None
    ) -> tuple[int | None, list[Reason]]:
        """The same, when `index` pending messages of its flow are known to stand before it.

        With `entry` the answer is as exact as can be; without, it is quick: limits of its recipient or group
        are left out, and what the accounts do next may be a fraction of a second old.
        """
        now = self._clock.now()
        reasons: list[Reason] = [] if self.held is None else [self.held]
        if not self.running:
            reasons.append(Reason("stopped", "the scheduler is stopped; start it with POST /scheduler/start"))
        if state is State.SCHEDULED:
            reasons.append(Reason("scheduled", "it is scheduled for later", due_at))
        elif state is State.RETRYING:
            reasons.append(Reason("retry", "it waits before its next attempt", due_at))
        if not self.owns(number):
            return None, [*reasons, Reason("elsewhere", "another node sends for this account and knows when")]
        lane = self._agenda.lanes.get(key.lane)
        if lane is None:
            return None, [*reasons, Reason("no-account", f"no account of {key.lane} is there to send it")]
        flow = lane.flows.get(number) or Flow(
            number, key, *self._agenda.scopes.of_flow(key), self._agenda.prefetch
        )
        place = Place(index, self._waiting(lane, flow))
        flows = {**forecast.rivals(lane, flow), number: flow}
        ahead = forecast.ahead_of(flow, place, flows)
        reasons += self._gates(lane, flow, now)
        not_before = due_at if state is not State.PENDING else now
        for gate in self._keyed(flow, entry):
            reasons += forecast.gate_reasons(gate, now)
            opens = gate.opens(now)
            not_before = max(not_before, opens if opens < NEVER else now)
        if state is State.PENDING and ahead:
            reasons.append(_line(ahead, index))
        if any(r.until is None and r.kind in _ENDLESS for r in reasons):
            return None, reasons
        return self._eta(lane, flow, ahead, now, not_before, quick=entry is None), reasons

    def _keyed(self, flow: Flow, entry: Entry | None) -> tuple[SharedGate, ...]:
        if entry is None or not flow.keyed:
            return ()
        return self._agenda.scopes.keyed(flow.key, flow.key.account, entry)

    def _waiting(self, lane: Lane, flow: Flow) -> dict[int, int]:
        return {n: self.pending.get(n, len(f.ready)) for n, f in forecast.rivals(lane, flow).items()}

    def _gates(self, lane: Lane, flow: Flow, now: int) -> list[Reason]:
        reasons: list[Reason] = []
        for gate in flow.gates:
            reasons += forecast.gate_reasons(gate, now)
        accounts = forecast.senders(lane, flow)
        if not accounts:
            name = flow.key.account.partition("/")[2]
            text = (
                f"account {name} is gone; move the message or put the account back"
                if name
                else "the pool is empty"
            )
            return [*reasons, Reason("no-account", text)]
        if flow.key.account != NOBODY or len(accounts) == 1:
            return reasons + forecast.gate_reasons(accounts[0], now)
        closed = [each for each in accounts if each.opens(now) > now]
        if len(closed) == len(accounts):
            first = min(accounts, key=lambda each: each.opens(now))
            reasons += forecast.gate_reasons(first, now)
        return reasons

    def _eta(
        self, lane: Lane, flow: Flow, ahead: int, now: int, not_before: int, *, quick: bool
    ) -> int | None:
        typical = self._typical(flow.key.queue)
        moment = self._schedule(lane, flow, now, typical, quick=quick).at(ahead)
        if moment is None:
            return None
        for gate in flow.gates:
            if gate.windows or gate.blocked_until > now:
                moment = max(moment, forecast.moment_of_gate(gate, ahead, now, typical))
        return max(moment, not_before)

    def _typical(self, queue: str) -> int:
        """Mean duration of a send in this queue, milliseconds."""
        known = self._figures.queues.get(queue)
        return round(known.sends.sum / known.sends.total) if known and known.sends.total else 0

    def _schedule(self, lane: Lane, flow: Flow, now: int, typical: int, *, quick: bool) -> Schedule:
        """The next sends of the flow's accounts; a quick answer may use one that was made a moment ago."""
        if not quick:
            return Schedule(forecast.able(forecast.senders(lane, flow)), now, typical)
        name = flow.key.account or lane.key
        kept = self._kept.get(name)
        if kept is not None and now - kept[0] <= FRESH_MS:
            return kept[1]
        made = Schedule(forecast.able(forecast.senders(lane, flow)), now, typical, QUICK_STEPS)
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[name] = (now, made)
        return made


def _line(ahead: int, index: int) -> Reason:
    others = ahead - index
    parts = [f"{index} ahead in this flow"] if index else []
    if others > 0:
        parts.append(f"{others} of other flows go first")
    return Reason("line", ", ".join(parts), None, ahead)


def reason_view(reason: Reason) -> dict[str, Any]:
    """A reason as JSON."""
    until = None if reason.until is None else print_time(reason.until)
    return {
        "kind": reason.kind,
        "text": reason.text if until is None else f"{reason.text} until {until}",
        "until": until,
        "ahead": reason.ahead,
    }
