"""A lane: the accounts of a pool and the messages that wait for them. One place decides for all of them.

`release(now)` takes out what may go at this moment; `settled(...)` tells it how a call ended. In between it
knows the next moment at which anything may change (`next_moment`), so nobody has to look before that.
Costs: one release is logarithmic in the number of accounts and does not depend on the backlog.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import islice
from typing import Protocol

import msgspec

from paceline.model.accounts import CircuitSpec
from paceline.model.messages import NOBODY, Entry
from paceline.pacing.circuit import Circuit
from paceline.pacing.flows import Flow, Standing
from paceline.pacing.gates import Gate, SharedGate, Waiting
from paceline.pacing.turns import Turns
from paceline.pacing.windows import NEVER

LOOK = 64
"""Among so many waiting entries or idle accounts one is looked for that fits: a bound for the cost of a release."""
RUN = 32
"""How many of its own messages one account may release in a row."""


class Release(msgspec.Struct, gc=False, eq=False):
    """One message that goes now, through this account. The engine makes it durable, then sends it.

    `gates` are the wider ones in which the send holds a place, besides the account's. `start_at` is the moment
    from which the call may begin: the account may open a little later than it is released, so that the time
    which making it durable takes is not lost to the account. `trial` is the open circuit it is to close.
    """

    entry: Entry
    flow: Flow
    account: "Account"
    lane: "Lane"
    gates: tuple[SharedGate, ...]
    start_at: int = 0
    trial: Circuit | None = None


class Account(Gate):
    """A sending identity within its lane: its gate and the flows that are pinned to it."""

    __slots__ = ("circuit", "free", "id", "listed", "moment", "pool_next", "rule", "stopped", "turns")

    def __init__(self, account_id: str, concurrency: int | None = 1) -> None:
        """`account_id` is ``"owner/name"``."""
        super().__init__(f"account {account_id.partition('/')[2]}", (), concurrency)
        self.id = account_id
        self.stopped = ""
        self.circuit: Circuit | None = None  # only while its provider seems to be down
        self.rule: CircuitSpec | None = None
        self.turns: Turns[Flow] = Turns()
        self.listed = False  # in the lane's line of accounts to look at
        self.free = False  # could send, has nothing to send
        self.pool_next = False  # own and the pool's flows of equal priority alternate
        self.moment = NEVER  # its place in one of the lane's heaps

    @property
    def unshared(self) -> bool:
        """Whether no wider gate is in the way of what it sends next."""
        if not self.turns:
            return True
        flow = self.turns.head()
        return not (flow.gates or flow.keyed)

    def opens(self, now: int) -> int:
        """As every gate; an account that the provider refused opens only after a person's or a probe's word."""
        if self.stopped:
            return NEVER
        circuit = self.circuit
        return super().opens(now) if circuit is None else max(super().opens(now), circuit.opens())

    @property
    def rests_until(self) -> int:
        """As every gate; an open circuit has a moment of its own."""
        return self.blocked_until if self.circuit is None else max(self.blocked_until, self.circuit.until)


class Shared(Protocol):
    """What a lane needs of the gates that are wider than it (see `agenda.Agenda`)."""

    def park(self, gate: SharedGate, flow: Flow, entry: Entry | None, opens: int) -> Waiting:
        """Put a flow, or one entry of it, in the line of the gate; answers its place there."""

    def keyed_gates(self, flow: Flow, account: Account, entry: Entry) -> tuple[SharedGate, ...]:
        """The gates of this entry's recipient and group."""

    def expired(self, entry: Entry, flow: Flow) -> None:
        """An entry's time has passed."""

    def wants(self, flow: Flow) -> None:
        """The flow should be read on from the store."""

    def dropped(self, flow: Flow) -> None:
        """The flow has nothing left, here or in the store."""

    def joined(self, lane: "Lane", account: Account) -> None:
        """An account joined a lane: calls under way that were begun under its name are its own."""

    @property
    def wall_ahead(self) -> int:
        """How many milliseconds the wall clock, by which messages expire, is ahead of the one that decides."""

    @property
    def crowded(self) -> bool:
        """Too many single entries wait aside: let whole flows wait from now on, so that memory stays bounded."""


class Lane:
    """The decisions of one pool."""

    __slots__ = (
        "_free", "_line", "_pinned", "_resting", "_shared", "accounts", "closed", "elsewhere", "flows", "key", "moment", "pinned", "turns",
    )  # fmt: skip

    def __init__(self, key: str, shared: Shared) -> None:
        """`key` is `model.messages.lane_key`."""
        self.key = key
        self.closed = False  # it is about to be another node's: nothing more is released
        self.accounts: dict[str, Account] = {}
        self.flows: dict[int, Flow] = {}
        self.pinned: dict[str, dict[int, Flow]] = {}  # the same flows by account, NOBODY for the pool's
        self.turns: Turns[Flow] = Turns()  # flows that any account of the pool may serve
        self.elsewhere: dict[
            int, Waiting
        ] = {}  # the pool's, kept waiting by one account: another may send them
        self.moment = NEVER  # its place in the agenda
        self._shared = shared
        self._line: deque[Account] = deque()
        self._free: OrderedDict[str, Account] = OrderedDict()  # its first is found at once, a dict's is not
        self._pinned: list[tuple[int, str]] = []  # accounts with work of their own, by the moment they open
        self._resting: list[tuple[int, str]] = []  # the others, looked at only when the pool has work

    # -- what changes from outside

    def add_account(self, account: Account) -> None:
        """An account joins the pool, and finds the messages that waited for it."""
        self.accounts[account.id] = account
        self._shared.joined(self, account)
        self.touch(account)
        for flow in self.pinned.get(account.id, {}).values():
            if flow.ready and flow.standing is Standing.IDLE:
                self.join(flow)

    def remove_account(self, account_id: str) -> None:
        """An account leaves; messages pinned to it stay in the store until somebody moves them."""
        account = self.accounts.pop(account_id, None)
        if account is None:
            return
        self._free.pop(account_id, None)
        account.moment = NEVER
        while account.turns:
            account.turns.leave(served=False).standing = Standing.IDLE

    def keep(self, flow: Flow) -> None:
        """A flow has messages here."""
        self.flows[flow.number] = flow
        self.pinned.setdefault(flow.key.account, {})[flow.number] = flow

    def forget(self, flow: Flow) -> None:
        """A flow has nothing left."""
        del self.flows[flow.number]
        group = self.pinned[flow.key.account]
        del group[flow.number]
        if not group:
            del self.pinned[flow.key.account]

    def touch(self, account: Account) -> None:
        """Something about an account changed: look at it at the next release."""
        account.moment = NEVER
        if not account.listed:
            account.listed = True
            if account.free:
                account.free = False
                self._free.pop(account.id, None)
            self._line.append(account)

    def join(self, flow: Flow) -> None:
        """A flow has something to send: give it its place in the rotation."""
        pinned = flow.key.account
        if pinned == NOBODY:
            flow.standing = Standing.IN_TURN
            self.turns.join(flow)
            return
        account = self.accounts.get(pinned)
        if account is None:
            return  # the account is gone: its messages are held until it is back or they are moved
        flow.standing = Standing.IN_TURN
        account.turns.join(flow)
        self.touch(account)

    # -- decisions

    @property
    def next_moment(self) -> int:
        """When the next release may find something; 0 for at once."""
        if self.closed:
            return NEVER
        if self._line or (self.turns and self._free):
            return 0
        moment = self._first(self._pinned)
        return min(moment, self._first(self._resting)) if self.turns or self.elsewhere else moment

    def release(self, now: int, room: int, emit: Callable[[Release], None], lead: int = 0) -> int:
        """Hand to `emit` what may go at `now`, at most `room` of it; answers how many.

        An account that opens within `lead` ms gives its message out already, with the moment to start.
        """
        self._wake(now + lead)
        left = 0 if self.closed else room
        given = left
        line = self._line
        while left:
            if not line:
                if not (self.turns and self._free):
                    break
                self.touch(next(iter(self._free.values())))
            account = line.popleft()
            account.listed = False
            left -= self._serve_run(account, now, left, emit, lead)
        return given - left

    def _serve_run(
        self, account: Account, now: int, room: int, emit: Callable[[Release], None], lead: int
    ) -> int:
        """Release what the account may send, then put it aside or at the end of the line; answers how many.

        Messages that only this account can send go in a run: their rows lie together in the store, so that a
        commit touches fewer pages. Where others want the same message or the same gate it is one at a time.
        """
        served = 0
        while self._serve(account, now, emit, lead):
            served += 1
            if served in (room, RUN) or self.turns or not account.unshared:
                account.listed = True
                self._line.append(account)
                break
        return served

    def _wake(self, now: int) -> None:
        heaps = (self._pinned, self._resting) if self.turns or self.elsewhere else (self._pinned,)
        for heap in heaps:
            while self._first(heap) <= now:
                self.touch(self.accounts[heappop(heap)[1]])

    def _first(self, heap: list[tuple[int, str]]) -> int:
        """The first moment in a heap; entries that were overtaken are thrown away on the way."""
        while heap:
            moment, account_id = heap[0]
            account = self.accounts.get(account_id)
            if account is not None and account.moment == moment:
                return moment
            heappop(heap)
        return NEVER

    def _serve(self, account: Account, now: int, emit: Callable[[Release], None], lead: int) -> bool:
        """Release one message through the account if it may send and has one; else put the account aside."""
        if self.accounts.get(account.id) is not account:
            return False  # removed, or another one took its name
        opens = account.opens(now)
        if opens > now + lead:
            if opens < NEVER:
                account.moment = opens
                heappush(self._pinned if account.turns else self._resting, (opens, account.id))
            return False
        if self.elsewhere and self._serve_elsewhere(account, max(now, opens), opens, emit):
            return True
        while account.turns or self.turns:
            turns = self._whose(account)
            flow = turns.head()
            entry = flow.ready.popleft() if flow.ready else None
            if entry is None:
                self._leave(turns, flow, served=False)
                continue
            if entry.expires_at is not None and entry.expires_at <= now + self._shared.wall_ahead:
                self._shared.expired(entry, flow)
                continue
            if self._closed(turns, flow, entry, account, now):
                continue
            emit(self._take(turns, flow, entry, account, max(now, opens), opens))
            return True
        account.free = True
        self._free[account.id] = account
        return False

    def _whose(self, account: Account) -> Turns[Flow]:
        """The account's own flows or the pool's: the higher priority, and in turn where they are equal."""
        own, pool = account.turns, self.turns
        if own.priority == pool.priority:
            account.pool_next = not account.pool_next
            return own if account.pool_next else pool
        return own if own.priority > pool.priority else pool

    def _closed(self, turns: Turns[Flow], flow: Flow, entry: Entry, account: Account, now: int) -> bool:
        """Whether a wider gate is closed; then the flow, or this entry alone, waits in the gate's line."""
        for gate in flow.gates:
            opens = gate.opens(now)
            # Where others stand in line nobody goes past them: the line is let out in turns.
            if opens > now or (gate.line and gate not in flow.passes):
                flow.passes = tuple(each for each in flow.passes if each is not gate)
                flow.ready.appendleft(entry)
                turns.leave(served=False)
                flow.standing = Standing.PARKED
                self._shared.park(gate, flow, None, opens)
                return True
        if flow.keyed:
            closed = [g for g in self._shared.keyed_gates(flow, account, entry) if g.opens(now) > now]
            if closed:
                # Where the wait of this one account is all that is in the way, others may send it.
                gate = next((g for g in closed if not g.of_one_account), closed[0])
                self._set_aside(turns, flow, entry, gate, now)
                return True
        return False

    def _set_aside(self, turns: Turns[Flow], flow: Flow, entry: Entry, gate: SharedGate, now: int) -> None:
        """One recipient or group has to wait: only its messages do, as long as there is room for them aside."""
        if self._shared.crowded:
            flow.ready.appendleft(entry)
            turns.leave(served=False)
            flow.standing = Standing.PARKED
            self._shared.park(gate, flow, None, gate.opens(now))
            return
        waiting = self._shared.park(gate, flow, entry, gate.opens(now))
        if gate.of_one_account and flow.key.account == NOBODY:
            self.elsewhere[entry.id] = waiting
            for idle in islice(self._free.values(), LOOK):
                if self._able(idle, waiting, now):
                    self.touch(idle)
                    break

    def _serve_elsewhere(
        self, account: Account, now: int, start_at: int, emit: Callable[[Release], None]
    ) -> bool:
        """Release through this account what another one of the pool has to wait with, unless it has better to do."""
        urgent = max(account.turns.priority, self.turns.priority)
        for waiting in islice(self.elsewhere.values(), LOOK):
            flow, entry = waiting.flow, waiting.entry
            if entry is None or flow.key.priority < urgent or not self._able(account, waiting, now):
                continue
            del self.elsewhere[entry.id]
            waiting.gone = True
            flow.gone()
            emit(self._made(flow, entry, account, now, start_at))
            if flow.standing is Standing.IDLE:
                self._idle(flow)
            return True
        return False

    def _able(self, account: Account, waiting: Waiting, now: int) -> bool:
        """Whether nothing but the account itself is in the way of this entry."""
        flow, entry = waiting.flow, waiting.entry
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now):
            return False
        gates = (*flow.gates, *self._shared.keyed_gates(flow, account, entry))
        return all(gate.opens(now) <= now for gate in gates)

    def _take(
        self, turns: Turns[Flow], flow: Flow, entry: Entry, account: Account, now: int, start_at: int
    ) -> Release:
        made = self._made(flow, entry, account, now, start_at)
        flow.passes = ()
        if flow.ready:
            turns.served()
        else:
            self._leave(turns, flow, served=True)
        if flow.more and flow.wants:
            self._shared.wants(flow)
        return made

    def _made(self, flow: Flow, entry: Entry, account: Account, now: int, start_at: int) -> Release:
        gates = flow.gates
        if flow.keyed:
            gates = (*gates, *self._shared.keyed_gates(flow, account, entry))
        account.take(now)
        for gate in gates:
            gate.take(now)
        trial = account.circuit and account.circuit.begun()
        return Release(entry, flow, account, self, gates, start_at, trial)

    def _leave(self, turns: Turns[Flow], flow: Flow, *, served: bool) -> None:
        turns.leave(served=served)
        flow.standing = Standing.IDLE
        self._idle(flow)

    def _idle(self, flow: Flow) -> None:
        """A flow has nothing in memory to send: read on for it, or forget it."""
        if flow.ready or flow.more or flow.reading or flow.aside:
            if flow.wants:
                self._shared.wants(flow)
        else:
            self.forget(flow)
            self._shared.dropped(flow)
