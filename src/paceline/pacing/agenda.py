"""What is due when, over all lanes, and the gates that are wider than a lane.

Two heaps, one of lanes and one of closed gates with somebody in line, tell the next moment at which anything
may happen. Nothing scans the accounts, and until that moment there is nothing to do.
"""

from collections import OrderedDict
from collections.abc import Iterable
from heapq import heappop, heappush

from paceline.model.messages import Entry, FlowKey
from paceline.pacing.flows import Flow, Prefetch, Standing
from paceline.pacing.gates import SharedGate, Waiting
from paceline.pacing.lane import Account, Lane, Release
from paceline.pacing.scopes import Rule, Scopes
from paceline.pacing.windows import NEVER

CHUNK = 64
"""How many messages one lane may release before the next lane has its turn."""
ASIDE = 20_000
"""How many single entries may wait aside for their recipient or group, over all lanes."""


class Agenda:
    """All lanes of this node."""

    def __init__(self, scopes: Scopes, prefetch: Prefetch | None = None) -> None:
        """`scopes` holds the limits that are wider than an account."""
        self.scopes = scopes
        self.prefetch = prefetch or Prefetch()
        self.lanes: dict[str, Lane] = {}
        self.out: dict[int, Release] = {}
        self.wanted: OrderedDict[int, Flow] = OrderedDict()  # to be read on, those that run short in front
        self.late: list[tuple[Entry, Flow]] = []
        self._aside = 0
        self._holds = 0
        self._due: OrderedDict[str, Lane] = OrderedDict()  # a dict would look for its first among the gone
        self._heap: list[tuple[int, str]] = []
        self._stirred: dict[int, SharedGate] = {}
        self._closed: list[tuple[int, int, SharedGate]] = []
        self._tick = 0

    # -- what arrives

    def lane(self, key: str) -> Lane:
        """The lane with this key, made on first use."""
        found = self.lanes.get(key)
        if found is None:
            found = self.lanes[key] = Lane(key, self)
        return found

    def flow(self, number: int, key: FlowKey) -> Flow:
        """The flow with this key, made on first use."""
        lane = self.lane(key.lane)
        flow = lane.flows.get(number)
        if flow is None:
            gates, keyed = self.scopes.of_flow(key)
            flow = Flow(number, key, gates, keyed, self.prefetch)
            lane.keep(flow)
            self.prefetch.count(1)
            if self.prefetch.shrunk():
                self._trim()
        return flow

    def drop(self, key: str) -> None:
        """Another node decides about this lane from now on. Its calls have ended, or are nobody's here any more."""
        lane = self.lanes.pop(key, None)
        if lane is not None:
            self._due.pop(key, None)
            self.prefetch.count(-len(lane.flows))
            for number in lane.flows:
                self.wanted.pop(number, None)

    def _holds_flow(self, flow: Flow) -> bool:
        """Whether the flow is still this node's: one of a lane that was dropped may stand in a line, or be read."""
        lane = self.lanes.get(flow.key.lane)
        return lane is not None and lane.flows.get(flow.number) is flow

    def _trim(self) -> None:
        for lane in self.lanes.values():
            for flow in lane.flows.values():
                flow.trim()

    def offer(self, number: int, key: FlowKey, entry: Entry) -> None:
        """A message became due, durably. One that comes back from a call is offered after `settled`."""
        flow = self.flow(number, key)
        if flow.offer(entry):
            self._rejoin(flow)
        elif flow.wants:
            self.wants(flow)

    def known(self, number: int, key: FlowKey) -> None:
        """The store holds pending messages of this flow: read them."""
        flow = self.flow(number, key)
        flow.more = True
        self.wants(flow)

    def filled(self, flow: Flow, entries: Iterable[Entry], *, more: bool) -> None:
        """What was read for a wanted flow."""
        if not self._holds_flow(flow):
            return
        flow.filled(entries, more=more)
        lane = self.lanes[flow.key.lane]
        if flow.ready:
            self._rejoin(flow)
        elif flow.wants:
            self.wants(flow)
        elif flow.standing is Standing.IDLE and not (flow.more or flow.aside):
            lane.forget(flow)
            self.dropped(flow)

    def _rejoin(self, flow: Flow) -> None:
        if flow.standing is Standing.IDLE:
            lane = self.lanes[flow.key.lane]
            lane.join(flow)
            self._due[lane.key] = lane

    # -- decisions

    @property
    def next_moment(self) -> int:
        """When something may happen next; 0 for at once, NEVER when only an event can tell."""
        return self.wake_at(0)

    def wake_at(self, lead: int) -> int:
        """The same for who gives messages out `lead` ms before their account opens."""
        if self._holds:
            return NEVER
        if self._due or self._stirred:
            return 0
        moment = NEVER
        while self._heap:
            first, key = self._heap[0]
            lane = self.lanes.get(key)
            if lane is not None and lane.moment == first:
                moment = first
                break
            heappop(self._heap)
        while self._closed and self._closed[0][2].moment != self._closed[0][0]:
            heappop(self._closed)
        if moment < NEVER:
            moment = max(1, moment - lead)
        return min(moment, self._closed[0][0]) if self._closed else moment

    def release(self, now: int, room: int, lead: int = 0) -> list[Release]:
        """Take out what may go at `now`, at most `room` messages; each holds its places from here on.

        With `lead`, also what may go through an account that opens in so many ms: see `Release.start_at`.
        """
        released: list[Release] = []
        if self._holds:
            return released

        def emit(release: Release) -> None:
            if self.out.setdefault(release.entry.id, release) is release:
                released.append(release)
            else:
                self._free(release)  # heard of twice; it is on its way already

        self._wake(now, lead)
        while self._due and len(released) < room:
            _, lane = self._due.popitem(last=False)
            lane.release(now, min(CHUNK, room - len(released)), emit, lead)
            self._schedule(lane, now + lead)
            if not self._due:
                self._wake(now, lead)
        return released

    def _wake(self, now: int, lead: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now + lead:
            moment, key = heappop(heap)
            lane = self.lanes.get(key)
            if lane is not None and lane.moment == moment:
                lane.moment = NEVER
                self._due[key] = lane
        while self._closed and self._closed[0][0] <= now:
            moment, _, gate = heappop(self._closed)
            if gate.moment == moment:
                gate.moment = NEVER
                self._stirred[id(gate)] = gate
        while self._stirred:
            stirred, self._stirred = self._stirred, {}
            for gate in stirred.values():
                self._open(gate, now)
            if self._due:
                break

    def _schedule(self, lane: Lane, now: int) -> None:
        moment = lane.next_moment
        if moment <= now:
            self._due[lane.key] = lane
        elif moment != lane.moment:
            lane.moment = moment
            if moment < NEVER:
                heappush(self._heap, (moment, lane.key))

    def _open(self, gate: SharedGate, now: int) -> None:
        """Let as many out of the line as the gate has room for; who cannot use it now does not count."""
        room = gate.room(now)
        while gate.line and room > 0:
            if not self._holds_flow(gate.line.head().flow):
                self._aside -= gate.line.leave(served=False).entry is not None
                continue
            able = self._could_send(gate.line.head().flow, now)
            waiting = gate.line.leave(served=able and not gate.line.head().gone)
            flow = waiting.flow
            if waiting.entry is not None:
                self._aside -= 1
                if waiting.gone:
                    continue
                self.lanes[flow.key.lane].elsewhere.pop(waiting.entry.id, None)
                flow.back(waiting.entry)
            elif flow.standing is Standing.PARKED:
                flow.standing = Standing.IDLE
                flow.passes = (*flow.passes, gate)
            if flow.ready:
                self._rejoin(flow)
                room -= able
        if gate.line:
            opens = gate.opens(now)
            if opens <= now:
                self._stirred[id(gate)] = gate
            elif opens < NEVER:
                self._await(gate, opens)

    def _could_send(self, flow: Flow, now: int) -> bool:
        account = self.lanes[flow.key.lane].accounts.get(flow.key.account)
        return account is None or account.opens(now) <= now

    def _await(self, gate: SharedGate, moment: int) -> None:
        if moment < gate.moment:
            gate.moment = moment
            self._tick += 1
            heappush(self._closed, (moment, self._tick, gate))

    # -- how it ended

    def settled(self, message: int, at: int, *, spent: bool = True) -> Release | None:
        """The call for this message ended at `at`; `spent` False where the provider certainly did not take it."""
        release = self.out.pop(message, None)
        if release is not None:
            release.account.finish(at, spent=spent)
            if release.trial is not None:
                release.trial.over()
            for gate in release.gates:
                gate.finish(at, spent=spent)
            self._stir(release)
        return release

    def closed(self, release: Release, now: int) -> bool:
        """Whether what was released may not begin after all: somebody or a provider has closed its way since."""
        account = release.account
        if account.blocked_until > now or account.paused or account.stopped:
            return True
        circuit = account.circuit
        if circuit is not None and circuit.is_open and circuit is not release.trial:
            return True
        for gate in release.gates:
            if gate.paused or gate.blocked_until > now:
                return True
        # A wait of its recipient may be newer than the release, which then does not know that gate.
        return self.scopes.waits and self.scopes.told_to_wait(account.id, release.entry, now)

    def withdrawn(self, message: int) -> Release | None:
        """The hand-over did not take place: the places are free at once."""
        release = self.out.pop(message, None)
        if release is not None:
            self._free(release)
        return release

    def _free(self, release: Release) -> None:
        release.account.withdraw()
        if release.trial is not None:
            release.trial.over()
        for gate in release.gates:
            gate.withdraw()
        self._stir(release)

    def _stir(self, release: Release) -> None:
        if self.lanes.get(release.lane.key) is release.lane:
            release.lane.touch(release.account)
            self._due[release.lane.key] = release.lane
        for gate in release.gates:
            if gate.line:
                self._stirred[id(gate)] = gate

    def touched(self, lane: Lane, account: Account) -> None:
        """An account was changed from outside (limits, pause, a flood wait): look at it again."""
        lane.touch(account)
        self._due[lane.key] = lane

    def stir(self, gate: SharedGate) -> None:
        """A wider gate was changed from outside."""
        self._stirred[id(gate)] = gate

    def block(self, account_id: str, kind: str, value: str, until: int) -> None:
        """The provider asked to wait with one recipient or group of an account."""
        first = not self.scopes.waits
        self.scopes.block(account_id, kind, value, until)
        if first:
            self.regate()

    def hold(self) -> None:
        """Release nothing until as many `let_go`: the history of a limit is being read."""
        self._holds += 1

    def let_go(self) -> None:
        """The history is there."""
        self._holds -= 1

    def set_rule(self, rule: Rule) -> SharedGate | None:
        """Add or replace a wide limit; answers its gate, whose history the caller restores, if it has just one."""
        let_go = self.scopes.drop_rule(rule.name)
        gate = self.scopes.set_rule(rule)
        self._replaced(let_go)
        return gate

    def drop_rule(self, name: str) -> None:
        """Remove a wide limit and let go who waits for it."""
        self._replaced(self.scopes.drop_rule(name))

    def _replaced(self, gates: list[SharedGate]) -> None:
        self.regate()
        for gate in gates:
            self.stir(gate)

    def regate(self) -> None:
        """The set of wider limits changed: every flow and every send under way gets the gates that apply now."""
        for lane in self.lanes.values():
            for flow in lane.flows.values():
                flow.gates, flow.keyed = self.scopes.of_flow(flow.key)
        for release in self.out.values():
            wanted, keyed = self.scopes.of_flow(release.flow.key)
            if keyed:
                wanted = (*wanted, *self.scopes.keyed(release.flow.key, release.account.id, release.entry))
            for gate in wanted:
                if gate not in release.gates:
                    gate.flying += 1
                    for window in gate.windows:
                        window.flying += 1
            release.gates = (*wanted, *(g for g in release.gates if g not in wanted))
        for gate in self.scopes.gates.values():
            self._stirred[id(gate)] = gate

    # -- what lanes ask for (`lane.Shared`)

    @property
    def crowded(self) -> bool:
        """Whether no more single entries may be put aside."""
        return self._aside >= ASIDE

    def park(self, gate: SharedGate, flow: Flow, entry: Entry | None, opens: int) -> Waiting:
        """A flow, or one of its entries, waits in the line of a closed gate."""
        waiting = Waiting(flow, entry)
        gate.line.join(waiting)
        if entry is not None:
            flow.set_aside(entry)
            self._aside += 1
        if opens < NEVER:
            self._await(gate, opens)
        return waiting

    def keyed_gates(self, flow: Flow, account: Account, entry: Entry) -> tuple[SharedGate, ...]:
        """The gates of the entry's recipient and group."""
        return self.scopes.keyed(flow.key, account.id, entry)

    @property
    def wall_ahead(self) -> int:
        """How many milliseconds the wall clock is ahead of the one that decides."""
        return self.scopes.wall_ahead

    def expired(self, entry: Entry, flow: Flow) -> None:
        """Kept for the engine, which ends it in the store."""
        self.late.append((entry, flow))

    def wants(self, flow: Flow) -> None:
        """Kept for the engine, which reads on."""
        self.wanted[flow.number] = flow
        if flow.short:
            self.wanted.move_to_end(flow.number, last=False)

    def joined(self, lane: Lane, account: Account) -> None:
        """Calls begun under the name of an account that left and is back as a new object are the new one's."""
        for release in self.out.values():
            if release.account.id == account.id and release.account is not account:
                release.account = account
                release.lane = lane
                account.flying += 1
                for window in account.windows:
                    window.flying += 1
                for quota in account.quotas:
                    quota.reserve_flying(1)
        self._due[lane.key] = lane

    def dropped(self, flow: Flow) -> None:
        """A flow has nothing left."""
        self.prefetch.count(-1)
        self.wanted.pop(flow.number, None)
