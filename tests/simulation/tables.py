"""What is on the simulated disk: the same facts as the schema of the embedded store, as plain objects.

Each method here is one kind of write, done at once and completely: what a commit does at the moment it becomes
durable. `store` decides when that moment is, and whether it comes.
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from paceline.model.errors import ConflictError
from paceline.model.messages import (
    AccountNote,
    Added,
    Entry,
    FlowKey,
    HandedOver,
    Mark,
    NewMessage,
    Revision,
    Settlement,
)
from paceline.model.states import State
from paceline.stores.base import Document, Expired, Promoted

DAY_MS = 86_400_000
PENDING, PROCESSING = int(State.PENDING), int(State.PROCESSING)
SCHEDULED, RETRYING = int(State.SCHEDULED), int(State.RETRYING)
WAITING = (SCHEDULED, RETRYING, PENDING)
ENDED = tuple(int(s) for s in (State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED))
OPEN = (*WAITING, PROCESSING)
_ENDINGS = ("cancel", "expire", "confirm", "deny")
_COUNTED = {"accept": 0, "refuse": 1, "retry": 2, "confirm": 0, "deny": 1}


class Kept:
    """A message and its place: `row` is as it was added, the rest is as it is now."""

    __slots__ = (
        "account", "attempts", "due_at", "ending", "expires_at", "finished_at", "flow", "number", "pool", "priority",
        "recipient", "result", "row", "sender", "started_at", "state", "turn",
    )  # fmt: skip

    def __init__(self, row: NewMessage) -> None:
        self.row = row
        self.flow, self.state, self.number, self.attempts = row.flow, row.state, 0, 0
        self.due_at, self.turn, self.expires_at = row.due_at, row.turn, row.expires_at
        self.sender = ""
        self.started_at: int | None = None
        self.finished_at: int | None = None
        self.account, self.pool, self.priority, self.recipient = (
            row.account,
            row.pool,
            row.priority,
            row.recipient,
        )
        self.result: str | None = None
        self.ending: Line | None = None  # the last journal line's, once that line was cleaned

    @property
    def entry(self) -> Entry:
        """As a lane sees it."""
        return Entry(self.turn, self.row.id, self.expires_at, self.recipient, self.row.group)

    def handed_over(self, account: str) -> HandedOver:
        """As a call sees it."""
        row = self.row
        return HandedOver(
            row.id, self.number, self.attempts, account, row.tenant, row.queue, row.channel, self.recipient,
            row.kind, row.group, row.content, row.metadata, row.max_attempts, row.timeout_ms, row.backoff,
            row.trace_id, row.callback_url, row.created_at, self.expires_at, self.due_at, self.turn, self.flow,
        )  # fmt: skip


class Line:
    """A line of the journal."""

    __slots__ = (
        "account", "code", "finished", "flow", "group", "handed_over", "message", "number", "outcome", "recipient",
        "reference", "started", "text",
    )  # fmt: skip

    def __init__(
        self, kept: Kept, number: int, account: str, handed_over: int, started: int | None, finished: int,
        outcome: str, code: str | None, text: str | None, reference: str | None,
    ) -> None:  # fmt: skip
        self.message, self.number, self.flow, self.account = kept.row.id, number, kept.flow, account
        self.recipient, self.group = kept.recipient, kept.row.group
        self.handed_over, self.started, self.finished = handed_over, started, finished
        self.outcome, self.code, self.text, self.reference = outcome, code, text, reference


class Tables:
    """Everything that survives a crash."""

    def __init__(self) -> None:
        """An empty disk."""
        self.messages: dict[int, Kept] = {}
        self.flows: dict[int, FlowKey] = {}
        self.pending: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self.open = 0  # messages that wait or are handed over
        self.keys: dict[tuple[str, str], tuple[int, str | None]] = {}
        self.journal: defaultdict[int, list[Line]] = defaultdict(list)
        self.by_account: defaultdict[str, list[Line]] = defaultdict(list)
        self.notes: dict[tuple[str, str, str], AccountNote] = {}
        self.documents: dict[tuple[str, str, str], Document] = {}
        self.work: Counter[tuple[int, str, str, str, str, int]] = Counter()
        self.greatest = 0
        self.fenced = True
        self._scheduled: list[tuple[int, int]] = []
        self._retrying: list[tuple[int, int]] = []
        self._expiry: list[tuple[int, int]] = []

    # -- where a message stands

    def _leave(self, kept: Kept) -> None:
        if kept.state == PENDING:
            line = self.pending[kept.flow]
            del line[bisect_left(line, (kept.turn, kept.row.id))]
            if not line:
                del self.pending[kept.flow]
        if kept.state in OPEN:
            self.open -= 1

    def _join(self, kept: Kept) -> None:
        if kept.state == PENDING:
            insort(self.pending[kept.flow], (kept.turn, kept.row.id))
        elif kept.state == SCHEDULED:
            heappush(self._scheduled, (kept.due_at, kept.row.id))
        elif kept.state == RETRYING:
            heappush(self._retrying, (kept.due_at, kept.row.id))
        if kept.expires_at is not None and kept.state in WAITING:
            heappush(self._expiry, (kept.expires_at, kept.row.id))
        if kept.state in OPEN:
            self.open += 1

    def _note_line(self, line: Line) -> None:
        self.journal[line.message].append(line)
        if line.account:
            insort(self.by_account[line.account], line, key=_place)

    def _count(self, kept: Kept, event: str, at: int, send_ms: int) -> None:
        place = (at // DAY_MS, kept.row.tenant, kept.row.queue, kept.row.channel, kept.sender)
        self.work[*place, _COUNTED[event]] += 1
        self.work[*place, 3] += send_ms

    # -- writes

    def conflict(self, rows: Iterable[NewMessage]) -> bool:
        """Whether one of these ids is taken, or stands there twice."""
        seen: set[int] = set()
        for row in rows:
            if row.id in self.messages or row.id in seen:
                return True
            seen.add(row.id)
        return False

    def add(self, rows: Sequence[NewMessage], flows: Sequence[FlowKey]) -> list[Added]:
        """New messages; one answer a row."""
        answers: list[Added] = []
        fresh: list[NewMessage] = []
        for row in rows:
            known = None
            if row.idempotency_key is not None:
                known = self.keys.get((row.tenant, row.idempotency_key))
                if known is None:
                    self.keys[row.tenant, row.idempotency_key] = (row.id, row.fingerprint)
            if known is not None:
                answers.append(Added(known[0], duplicate=True, fingerprint=known[1]))
            else:
                fresh.append(row)
                answers.append(Added(row.id))
        if self.conflict(fresh):
            for row in fresh:
                if row.idempotency_key is not None:
                    del self.keys[row.tenant, row.idempotency_key]
            raise ConflictError("this is already stored")
        for key in flows:
            self.flows.setdefault(key.number, key)
        for row in fresh:
            kept = self.messages[row.id] = Kept(row)
            self.greatest = max(self.greatest, row.id)
            self._join(kept)
        return answers

    def hand_over(self, marks: Sequence[Mark]) -> list[HandedOver]:
        """Mark what is still pending in the flow that its mark names."""
        handed = []
        for mark in marks:
            kept = self.messages.get(mark.id)
            if kept is None or kept.state != PENDING or kept.flow != mark.flow:
                continue
            self._leave(kept)
            kept.state, kept.number = PROCESSING, kept.number + 1
            kept.sender, kept.started_at = mark.account, mark.started
            self._join(kept)
            handed.append(kept.handed_over(mark.account))
        return handed

    def settle(self, settlements: Sequence[Settlement], notes: Sequence[AccountNote]) -> list[int]:
        """End hand-overs; answers what did not fit."""
        stale = []
        for made in settlements:
            kept = self.messages.get(made.id)
            fits = kept is not None and kept.state == PROCESSING and kept.number == made.number
            if not fits and self.fenced:
                stale.append(made.id)
                continue
            if kept is not None:
                self._end(kept, made)
        for note in notes:
            self._learn(note)
        return stale

    def _end(self, kept: Kept, made: Settlement) -> None:
        self._leave(kept)
        handed_over = kept.started_at if kept.started_at is not None else made.started
        line = Line(
            kept, kept.number, kept.sender, handed_over, made.started, made.finished,
            made.outcome, made.code, made.text, made.reference,
        )  # fmt: skip
        self._note_line(line)
        if made.event in _COUNTED:
            self._count(kept, made.event, made.finished, made.finished - made.started)
        kept.state, kept.attempts, kept.due_at, kept.turn = made.state, made.attempts, made.due_at, made.turn
        kept.started_at = made.started
        kept.finished_at = made.finished if made.state >= 5 else None
        if made.moved_to is not None:
            kept.recipient = made.moved_to
        if made.result is not None:
            kept.result = made.result
        self._join(kept)

    def _learn(self, note: AccountNote) -> None:
        key = (note.account, note.recipient, note.group)
        known = self.notes.get(key)
        if known is None:
            self.notes[key] = AccountNote(
                note.account, note.flood_until, note.recipient, note.group, note.stopped
            )
            return
        if note.flood_until is not None:
            known.flood_until = max(known.flood_until or note.flood_until, note.flood_until)
        if note.stopped is not None:
            known.stopped = note.stopped

    def promote(self, now: int, most: int, ahead: int) -> Promoted:
        """What is due stands in line again, the longest due first; scheduled ones are due by the wall clock."""
        found: list[tuple[int, Entry]] = []
        while len(found) < most and (due := self._next_due(ahead)) is not None and due[0] <= now:
            _, id_, heap = due
            kept = self.messages[id_]
            heappop(heap)
            self._leave(kept)
            if kept.state == SCHEDULED:
                kept.due_at, kept.turn = kept.due_at - ahead, kept.turn - ahead
            kept.state = PENDING
            self._join(kept)
            found.append((kept.flow, kept.entry))
        due = self._next_due(ahead)
        return Promoted(found, due[0] if due else None)

    def _next_due(self, ahead: int) -> tuple[int, int, list[tuple[int, int]]] | None:
        """The next due one: its moment on the scale of the process, its id, and the heap that it is the first of."""
        found = []
        for heap, state, shift in ((self._scheduled, SCHEDULED, ahead), (self._retrying, RETRYING, 0)):
            first = self._first(heap, (state,), due=True)
            if first is not None:
                found.append((first[0] - shift, first[1], heap))
        return min(found, key=lambda each: each[:2], default=None)

    def expire(self, now: int, most: int, ahead: int) -> Expired:
        """What has passed its time by the wall clock ends, the longest expired first."""
        ids: list[int] = []
        while (
            len(ids) < most
            and (first := self._first(self._expiry, WAITING, due=False)) is not None
            and first[0] <= now + ahead
        ):
            kept = self.messages[heappop(self._expiry)[1]]
            self._leave(kept)
            self._note_line(Line(kept, kept.number + 1, "", now, None, now, "expire", None, None, None))
            kept.state, kept.number, kept.finished_at = int(State.EXPIRED), kept.number + 1, now
            ids.append(kept.row.id)
        first = self._first(self._expiry, WAITING, due=False)
        return Expired(ids, first[0] - ahead if first else None)

    def _first(
        self, heap: list[tuple[int, int]], states: tuple[int, ...], *, due: bool
    ) -> tuple[int, int] | None:
        """The first of a heap that still holds; those that were overtaken are thrown away on the way."""
        while heap:
            kept = self.messages.get(heap[0][1])
            if (
                kept is not None
                and kept.state in states
                and (kept.due_at if due else kept.expires_at) == heap[0][0]
            ):
                return heap[0]
            heappop(heap)
        return None

    def revise(self, revisions: Sequence[Revision], now: int, flows: Sequence[FlowKey]) -> list[int]:
        """People's changes; answers the ids that still fitted. A message that stands there twice changes once."""
        for key in flows:
            self.flows.setdefault(key.number, key)
        fitting = []
        for made in revisions:
            kept = self.messages.get(made.id)
            fits = kept is not None and (kept.number, kept.state) == (made.number, made.from_state)
            if kept is None or not fits or made.id in fitting:
                continue
            if kept.state == PROCESSING and made.to_state is None:
                continue
            fitting.append(made.id)
            self._leave(kept)
            if made.to_state is None:
                self._delete(kept)
            else:
                self._revise(kept, made, made.to_state, now)
        return fitting

    def _revise(self, kept: Kept, made: Revision, to: int, now: int) -> None:
        if made.event in _ENDINGS:
            # The line is of the flow that the message was in.
            text = made.reason or None
            self._note_line(Line(kept, kept.number + 1, "", now, None, now, made.event, None, text, None))
            kept.number += 1
        if made.event in ("confirm", "deny"):
            self._count(kept, made.event, now, 0)
        if to != kept.state:
            kept.finished_at = now if to >= 5 else None
        kept.state, kept.flow, kept.due_at, kept.turn = to, made.flow, made.due_at, made.turn
        kept.expires_at, kept.attempts = made.expires_at, made.attempts
        kept.priority, kept.account, kept.pool = made.priority, made.account, made.pool
        if to < 5:
            kept.finished_at = None
        self._join(kept)

    def _delete(self, kept: Kept) -> None:
        if kept.row.idempotency_key is not None:
            self.keys.pop((kept.row.tenant, kept.row.idempotency_key), None)
        del self.messages[kept.row.id]

    def put(self, documents: Sequence[Document], shift_waits: int) -> None:
        """Insert or replace configuration rows, and move the noted waits."""
        for each in documents:
            self.documents[each.kind, each.tenant, each.name] = each
        for note in self.notes.values():
            if note.flood_until is not None:
                note.flood_until += shift_waits

    def remove(self, kind: str, tenant: str, name: str) -> int:
        """Delete a configuration row; answers how many there were."""
        return int(self.documents.pop((kind, tenant, name), None) is not None)

    def clean(self, ids: Sequence[int]) -> int:
        """Delete those of the messages that are ended."""
        found = [kept for id_ in ids if (kept := self.messages.get(id_)) is not None and kept.state in ENDED]
        for kept in found:
            self._delete(kept)
        return len(found)

    def clean_journal(self, lines: Sequence[Line], now: int) -> int:
        """Delete lines; a message that is kept takes over how it ended."""
        for line in lines:
            kept = self.messages.get(line.message)
            if kept is not None and kept.number == line.number:
                kept.ending = line
            own = self.journal[line.message]
            own.remove(line)
            if not own:
                del self.journal[line.message]
            if line.account:
                self.by_account[line.account].remove(line)
        for key, note in list(self.notes.items()):
            if not note.stopped and (note.flood_until or 0) < now:
                del self.notes[key]
        return len(lines)


def _place(line: Line) -> tuple[int, int]:
    return line.finished, line.message
