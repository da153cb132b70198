"""The decision core on a manual clock: a list of waiting messages, a provider that answers as told, a receiver.

Nothing here decides anything: it does what the engine does (offer, release, settle, read on) and writes down
what the receiver saw, so that tests can judge it by itself.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from paceline.clock import ManualClock
from paceline.model.backoff import Backoff, Fixed
from paceline.model.ids import IdMaker
from paceline.model.limits import parse_limit
from paceline.model.messages import NOBODY, AccountNote, Entry, FlowKey, HandedOver, account_id, lane_key
from paceline.model.outcomes import Accepted, Outcome
from paceline.model.states import State
from paceline.pacing.agenda import Agenda
from paceline.pacing.flows import Flow, Prefetch
from paceline.pacing.lane import Account, Release
from paceline.pacing.quotas import Quota
from paceline.pacing.scopes import Rule, Scopes
from paceline.pacing.settle import Policy, settle
from paceline.pacing.windows import NEVER, Spacing, Window

START = 1_700_000_000_000
OWNER = "t"
POOL = lane_key(OWNER, "chat", "pool")
ACCEPTED = Accepted()


class Send(NamedTuple):
    """One call: the receiver saw the message at `arrived`, somewhere between the start and the finish."""

    account: str
    message: int
    started: int
    arrived: int
    finished: int
    entry: Entry
    key: FlowKey
    outcome: Outcome


class Answer(NamedTuple):
    """How one call goes."""

    took_ms: int
    outcome: Outcome = ACCEPTED


class Waiting:
    """The pending messages of every flow, in the order (turn, id): what a store answers, and no more."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._entries: dict[int, Entry] = {}
        self.reads = 0

    def add(self, flow: int, entry: Entry) -> None:
        insort(self._places[flow], (entry.turn, entry.id))
        self._entries[entry.id] = entry

    def take(self, flow: int, entry: Entry) -> bool:
        """The message is pending no longer; False when it was not."""
        if self._entries.pop(entry.id, None) is None:
            return False
        places = self._places[flow]
        del places[bisect_right(places, (entry.turn, entry.id)) - 1]
        return True

    def read(self, flow: int, after: tuple[int, int], most: int) -> tuple[list[Entry], bool]:
        self.reads += 1
        places = self._places[flow]
        first = bisect_right(places, after)
        return [self._entries[id_] for _, id_ in places[first : first + most]], len(places) > first + most

    def __len__(self) -> int:
        return len(self._entries)


class Message:
    """What the store knows of one message."""

    __slots__ = ("attempts", "entry", "key", "max_attempts", "number")

    def __init__(self, entry: Entry, key: FlowKey, max_attempts: int) -> None:
        self.entry, self.key, self.max_attempts = entry, key, max_attempts
        self.attempts = self.number = 0


class Simulated:
    """One node, its agenda, its clock, and the world around it."""

    def __init__(
        self,
        call: Callable[[Release, int], Answer] | None = None,
        *,
        seed: int = 0,
        budget: int = 200_000,
        backoff: Backoff = Fixed(1000),  # noqa: B008 - a frozen value is shared by nobody's harm
        room: int = 500,
        read_ms: int = 0,
    ) -> None:
        """`call` answers each hand-over; `read_ms` is how long it takes until what was read arrives."""
        self.random = Random(seed)
        self.clock = ManualClock(START)
        self.agenda = Agenda(Scopes(self.clock.now), Prefetch(budget))
        self.call = call or (lambda _release, _now: Answer(100))
        self.policy = Policy(backoff, repeat_is_safe=False)
        self.waiting = Waiting()
        self.messages: dict[int, Message] = {}
        self.sends: list[Send] = []
        self.ended: dict[int, State] = {}
        self.steps = 0
        self._idle = 0
        self.most_held = 0
        self._room = room
        self._read_ms = read_ms
        self._ids = IdMaker()
        self._acts: list[tuple[int, int, Callable[[], object]]] = []
        self._act = 0

    @property
    def now(self) -> int:
        return self.clock.now()

    # -- the set-up

    def account(
        self,
        name: str,
        *limits: str,
        interval_ms: int = 0,
        jitter: float = 0,
        concurrency: int | None = 1,
        quotas: Iterable[Quota] = (),
        pool: str = POOL,
    ) -> Account:
        account = Account(account_id(OWNER, name), concurrency)
        windows = [Window(parse_limit(text)) for text in limits]
        if interval_ms:
            windows.append(Spacing(interval_ms, jitter, self.random.random))
        account.windows = tuple(windows)
        account.quotas = tuple(quotas)
        self.agenda.lane(pool).add_account(account)
        return account

    def limit(self, account: Account, *limits: str) -> None:
        """Change an account's limits as the engine does: new windows, with all of their history."""
        windows = [Window(parse_limit(text)) for text in limits]
        for window in windows:
            past = [s.finished for s in self.sends if s.account == account.id and s.finished <= self.now]
            window.restore([f for f in past if f + window.span > self.now], account.flying)
        account.windows = tuple(windows)
        self.agenda.touched(self.agenda.lane(POOL), account)

    def rule(self, rule: Rule) -> None:
        """Set a wide limit as the engine does, with its history."""
        gate = self.agenda.set_rule(rule)
        ended = [s for s in self.sends if s.finished <= self.now < s.finished + rule.limit.span_ms]
        for send in ended:
            if rule.covers(send.key):
                one = gate or self.agenda.scopes.keyed_gate(rule, send.entry.recipient, send.entry.group)
                if one is not None:
                    one.windows[0].occupy(send.finished)

    def key(
        self,
        account: str = NOBODY,
        tenant: str = OWNER,
        campaign: str = "",
        queue: str = "q",
        priority: int = 5,
    ) -> FlowKey:
        return FlowKey(POOL, tenant, campaign, queue, priority, account and account_id(OWNER, account))

    def add(
        self,
        key: FlowKey,
        *,
        recipient: str = "",
        group: str | None = None,
        expires_at: int | None = None,
        max_attempts: int = 3,
        turn: int | None = None,
        known: bool = True,
    ) -> int:
        """A message becomes durable now; `known` False leaves it to be read from the store."""
        id_ = self._ids.next(self.now)
        entry = Entry(self.now if turn is None else turn, id_, expires_at, recipient or f"r{id_}", group)
        self.messages[id_] = Message(entry, key, max_attempts)
        self.waiting.add(key.number, entry)
        if known:
            self.agenda.offer(key.number, key, entry)
        return id_

    def fill(self, key: FlowKey, count: int) -> list[int]:
        return [self.add(key) for _ in range(count)]

    def at(self, moment: int, act: Callable[[], object]) -> None:
        """Do something at a moment of the simulation."""
        self._act += 1
        heappush(self._acts, (moment, self._act, act))

    def after(self, ms: int, act: Callable[[], object]) -> None:
        self.at(self.now + ms, act)

    # -- the run

    def run(self, until: int | None = None) -> None:
        """Play until nothing can happen any more, or to a moment."""
        while True:
            self._turn()
            moment = self._acts[0][0] if self._acts else NEVER
            moment = min(moment, self.agenda.next_moment)
            if moment >= NEVER or (until is not None and moment > until):
                break
            self.clock.moment = moment
        if until is not None:
            self.clock.moment = max(self.now, until)

    def run_for(self, ms: int) -> None:
        self.run(self.now + ms)

    def _turn(self) -> None:
        """Everything that happens at this moment, until nothing is left to do."""
        self.steps += 1
        self._idle += 1
        assert self._idle < 500, "looks again and again where nothing happens"
        while self._acts and self._acts[0][0] <= self.now:
            self._idle = 0
            heappop(self._acts)[2]()
        while True:
            released = self.agenda.release(self.now, self._room)
            for release in released:
                self._idle = 0
                self._begin(release)
            read = self._read_on()
            for entry, flow in self.agenda.late:
                if self.waiting.take(flow.number, entry):
                    self.ended[entry.id] = State.EXPIRED
            self.agenda.late.clear()
            if not read and not released:
                break
        assert self.agenda.next_moment > self.now, "a moment in the past makes a busy loop"

    def _read_on(self) -> bool:
        wanted = [flow for flow in self.agenda.wanted.values() if flow.wants]
        self.agenda.wanted.clear()
        for flow in wanted:
            entries, more = self.waiting.read(flow.number, flow.begin_reading(), flow.prefetch.size)
            if self._read_ms:
                self.after(self._read_ms, lambda f=flow, e=entries, m=more: self._filled(f, e, m))  # type: ignore[misc]  # default arguments bind the loop's values
            else:
                self._filled(flow, entries, more)
        if wanted:
            self.most_held = max(self.most_held, self.held)
        return bool(wanted) and not self._read_ms

    def _filled(self, flow: Flow, entries: list[Entry], more: bool) -> None:
        self.agenda.filled(flow, entries, more=more)

    @property
    def held(self) -> int:
        """Entries in memory, those in lines of gates not counted."""
        return sum(len(flow.ready) for lane in self.agenda.lanes.values() for flow in lane.flows.values())

    def _begin(self, release: Release) -> None:
        entry = release.entry
        if not self.waiting.take(release.flow.number, entry):
            self.agenda.withdrawn(entry.id)  # the store refuses what is not pending
            return
        self.messages[entry.id].number += 1
        answer = self.call(release, self.now)
        started, finished = self.now, self.now + answer.took_ms
        arrived = self.random.randint(started, finished)
        send = Send(
            release.account.id, entry.id, started, arrived, finished, entry, release.flow.key, answer.outcome
        )
        self.sends.append(send)
        self.at(finished, lambda: self._end(send, release))

    def _end(self, send: Send, release: Release) -> None:
        message = self.messages[send.message]
        verdict = settle(
            _handed_over(message, send), send.outcome, send.started, self.now, self.policy, self.random.random
        )
        found = self.agenda.settled(send.message, self.now, spent=verdict.spent)
        assert found is release
        if verdict.note is not None:
            self._learn(verdict.note, release)
        made = verdict.settlement
        message.attempts = made.attempts
        recipient = made.moved_to or message.entry.recipient
        message.entry = Entry(
            made.turn, send.message, message.entry.expires_at, recipient, message.entry.group
        )
        if made.state == State.PENDING:
            self._again(message)
        elif made.state == State.RETRYING:
            self.at(made.due_at, lambda: self._again(message))
        else:
            self.ended[send.message] = State(made.state)

    def _again(self, message: Message) -> None:
        number = message.key.number
        self.waiting.add(number, message.entry)
        self.agenda.offer(number, message.key, message.entry)

    def _learn(self, note: AccountNote, release: Release) -> None:
        if note.stopped is not None:
            release.account.stopped = note.stopped
        for kind, value in (("recipient", note.recipient), ("group", note.group)):
            if value and note.flood_until is not None:
                self.agenda.block(note.account, kind, value, note.flood_until)
                return
        if note.flood_until is not None:
            release.account.block(note.flood_until)
        self.agenda.touched(release.lane, release.account)

    # -- what the receiver saw

    def of(self, account: Account | str) -> list[Send]:
        """The sends of one account, in the order of their starts."""
        id_ = account if isinstance(account, str) else account.id
        return [send for send in self.sends if send.account == id_]


def _handed_over(message: Message, send: Send) -> HandedOver:
    entry = message.entry
    return HandedOver(
        id=entry.id, number=message.number, attempts=message.attempts, account=send.account,
        tenant=send.key.tenant, queue=send.key.queue, channel="chat", recipient=entry.recipient, kind=None,
        group=entry.group, content="", metadata=None, max_attempts=message.max_attempts, timeout_ms=30_000,
        backoff=None, trace_id="", callback_url=None, created_at=0, expires_at=entry.expires_at,
        due_at=entry.turn, turn=entry.turn, flow=send.key.number,
    )  # fmt: skip


def most_arrivals(sends: Iterable[Send], span_ms: int) -> int:
    """The most arrivals that any window of this length held, wherever it starts."""
    arrivals = sorted(send.arrived for send in sends)
    most = first = 0
    for last, arrival in enumerate(arrivals):
        while arrivals[first] <= arrival - span_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_possible(sends: Iterable[Send], span_ms: int) -> int:
    """The most that a window could have held, wherever between start and finish each arrival had fallen.

    A window that begins at t can hold a send which starts before t + span and does not finish before t.
    """
    changes = [change for s in sends for change in ((s.started, 1), (s.finished + span_ms, -1))]
    changes.sort()  # at one moment, places are given back before they are taken
    most = current = 0
    for _, change in changes:
        current += change
        most = max(most, current)
    return most


def most_at_once(sends: Iterable[Send]) -> int:
    """The most calls that were under way together."""
    return most_possible(sends, 0)


def delays(sends: Sequence[Send], limits: Sequence[str], concurrency: int | None = None) -> list[int]:
    """By how much each send started later than limits and concurrency allowed, had there always been work.

    Told from the record alone: a place is free when fewer than `maximum` earlier sends have it, each from its
    start until the span after its finish.
    """
    counters = [(parsed.maximum, parsed.span_ms) for parsed in map(parse_limit, limits)]
    if concurrency is not None:
        counters.append((concurrency, 0))
    found = []
    for index, send in enumerate(sends):
        earliest = sends[index - 1].started if index else send.started
        for maximum, span in counters:
            frees = sorted(other.finished + span for other in sends[:index][-_reach(maximum) :])
            if len(frees) >= maximum:
                earliest = max(earliest, frees[-maximum])
        found.append(send.started - earliest)
    return found


def _reach(maximum: int) -> int:
    # Calls overtake one another, but not by this many.
    return 2 * maximum + 50
