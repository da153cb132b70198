"""The loop: lanes due -> release -> durable hand-over -> attempt -> settle -> durable ending.

It runs when something changed or when the agenda's next moment has come, and sleeps in between.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from paceline.clock import Clock
from paceline.engine.alarm import Alarm
from paceline.engine.attempts import Attempts, Ended
from paceline.engine.happenings import Happenings
from paceline.engine.places import Places
from paceline.engine.refill import Refill
from paceline.engine.starts import Starts
from paceline.model.errors import EndedError, UnavailableError
from paceline.model.ids import to_text
from paceline.model.messages import AccountNote, Entry, FlowKey, HandedOver, Mark, NewMessage, Settlement
from paceline.model.states import State
from paceline.pacing.agenda import Agenda
from paceline.pacing.lane import Account, Release
from paceline.pacing.lead import Lead
from paceline.pacing.settle import withhold
from paceline.pacing.windows import NEVER
from paceline.stores.base import Store
from paceline.stores.nodes import Handed

BATCH = 250
"""Hand-overs made durable together at most."""
AHEAD = 6
"""Batches of hand-overs under way at once: one being committed, the next ones waiting for the writer."""
AWAY_S = 0.5
"""How long to wait before asking a store again that could not write."""
TELL_AGAIN_S = 30.0
"""While a store stays away this is logged so often, not at each try."""

_PENDING, _RETRYING = int(State.PENDING), int(State.RETRYING)

log = structlog.get_logger("paceline.dispatcher")


class Dispatcher:
    """Drives one agenda against one store."""

    def __init__(
        self,
        store: Store,
        agenda: Agenda,
        clock: Clock,
        attempts: Attempts,
        happenings: Happenings,
        in_flight: int,
    ) -> None:
        """`in_flight` bounds the provider calls under way over all accounts."""
        self.store = store
        self.agenda = agenda
        self.clock = clock
        self.attempts = attempts
        self.happenings = happenings
        self.in_flight = in_flight
        self.running = False
        self.away = False
        self.pending: defaultdict[int, int] = defaultdict(int)  # waiting messages of each flow, for forecasts
        self.follow_up: Callable[[HandedOver, Settlement], tuple[NewMessage, FlowKey] | None] = (
            lambda _m, _s: None
        )
        self.when_due: Callable[[int], None] = lambda _moment: None
        self.when_new: Callable[[Sequence[tuple[NewMessage, FlowKey]]], None] = lambda _new: None
        self.key_of: Callable[[int], FlowKey | None] = lambda _flow: None
        self.owns: Callable[[int], bool] = lambda _flow: True
        self.may_send: Callable[[], bool] = lambda: True
        self.places: Places | None = None  # where several nodes share the store
        self._life = 0  # grows when this node was ended: calls of an earlier life are nobody's here
        self._alarm = Alarm(clock, self.wake)
        self._woken = False
        self._handing = 0
        self._ended: list[Ended] = []
        self._settling = False
        self._batch = 0  # the number of the batch that `_ended` will be
        self._writing: set[int] = set()
        self._wrote = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lead = Lead()
        self._refill = Refill(store, agenda, self._step_back, self.wake, self._spawn)
        self._tell_at = 0.0
        self.starts = Starts(clock, self._closed, self._begin, self._withheld)

    # -- life

    def start(self) -> None:
        """Begin to release."""
        self.running = True
        self.wake()

    def pause(self) -> None:
        """Release nothing more; calls under way go on."""
        self.running = False

    async def stop(self, grace: float) -> None:
        """Release nothing more and let calls under way end; cut off, after `grace` seconds, what is left."""
        self.running = False
        self._alarm.cancel()
        self._refill.stop()
        # What is being marked right now is waited for: only then is nothing left that could begin.
        while self._handing:
            await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)
        self.starts.stop()
        await self.attempts.drain(grace)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self._alarm.cancel()

    def wake(self) -> None:
        """Something changed: look at the agenda once this turn of the event loop is over."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._turn)

    def forget(self) -> set[asyncio.Task[None]]:
        """This node was ended: whatever it has under way is somebody else's now, and is cut off.

        Answers the calls, which have to end before this process sends again.
        """
        self._life += 1
        _told_late([each.message.id for each in self._ended])
        self._ended.clear()
        self._wrote.set()  # who waits for their lines waits for nothing
        for id_ in list(self.agenda.out):
            self.agenda.withdrawn(id_)
        self.pending.clear()
        self.starts.forget()
        return self.attempts.abandon()

    def arrived(self, flow: int, key: FlowKey, entry: Entry) -> None:
        """A pending message is on disk. One that another node decides about is left to it."""
        if not self.owns(flow):
            return
        self.pending[flow] += 1
        self.agenda.offer(flow, key, entry)
        self.wake()

    # -- one turn

    def _turn(self) -> None:
        self._woken = False
        now = self.clock.now()
        self.agenda.scopes.wall_ahead = self.clock.ahead()
        room = min(BATCH, self.in_flight - len(self.agenda.out))
        if not self.away and not self.may_send():
            self._step_back(UnavailableError("the lease of this node ran out and could not be renewed yet"))
        if self.running and not self.away and room > 0 and self._handing < AHEAD:
            released = self.agenda.release(now, room, self._lead.ms(now))
            if released:
                self._handing += 1
                # The calls that made room are settled in this commit or an earlier one, never in a later one:
                # so after a crash no more messages are open than calls were allowed to be.
                if self._ended:
                    self._spawn(self._settle_batch(*self._take_ended()))
                self._spawn(self._hand_over(released, now, self.places.heard if self.places else 0))
        if not self.away:
            self._refill.look()
        if self.agenda.late:
            late, self.agenda.late = self.agenda.late, []
            self.when_due(now)  # upkeep ends everything that is past its time
            self._spawn(self._look_again([entry.id for entry, _ in late], now))
        self._sleep(now)

    def _sleep(self, now: int) -> None:
        if not self.running or self.away or self._handing >= AHEAD or len(self.agenda.out) >= self.in_flight:
            return  # the end of what is under way wakes us
        moment = self.agenda.wake_at(self._lead.ms(now))
        if moment <= now:
            self.wake()
        elif moment < NEVER:
            self._alarm.set(moment)
        else:
            self._alarm.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- hand-over

    async def _hand_over(self, released: Sequence[Release], now: int, heard: int) -> None:
        marks = [Mark(r.entry.id, r.flow.number, r.account.id, now) for r in released]
        life = self._life
        try:
            if self.places is None:
                answer = Handed(await self.store.hand_over(marks, now), [], [], stale=False)
            else:
                answer = await self.places.hand_over(released, marks, now, heard)
            done = self.clock.now()
            self._lead.learn(done - now, done)
        except UnavailableError as error:
            if life == self._life:
                self._put_back(released)
            self._step_back(error)
            return
        finally:
            self._handing -= 1
        if life != self._life:
            return  # whoever ended this node finds the marks
        handed = answer.handed
        if len(handed) < len(released):
            self._unmarked(released, answer, now)
        self.starts.put([(message, self.agenda.out[message.id]) for message in handed])
        for message in handed:
            self.pending[message.flow] -= 1
        self.happenings.handed_over(handed)
        self.wake()

    def _unmarked(self, released: Sequence[Release], answer: Handed, now: int) -> None:
        """Some were not handed over: a wide limit was in the way, or they were not there any more."""
        if self.places is not None and (answer.refused or answer.stale):
            refused = set(answer.refused)
            self._put_back([each for each in released if answer.stale or each.entry.id in refused])
            self.places.refused(released, answer, self.clock.now())
            if answer.stale:
                return
        known = {*answer.refused, *(message.id for message in answer.handed)}
        gone = [release.entry.id for release in released if release.entry.id not in known]
        for id_ in gone:
            self.agenda.withdrawn(id_)  # cancelled, moved or expired in the meantime
        if gone:
            self._spawn(self._look_again(gone, now))

    def _closed(self, release: Release, now: int) -> bool:
        return self.agenda.closed(release, now) or not self.may_send()

    def _begin(self, message: HandedOver, release: Release) -> None:
        self.attempts.begin(message, release, partial(self._over, self._life))

    def _withheld(self, message: HandedOver, release: Release) -> None:
        """The account was closed while the hand-over was written: the call does not begin."""
        now = self.clock.now()
        self.agenda.withdrawn(message.id)
        self._gather(Ended(message, release, None, withhold(message, now), now, now))

    async def _look_again(self, ids: Sequence[int], now: int) -> None:
        """What the lane held of these messages was out of date: offer those that wait as the store has them.

        A person may have moved one, or given it more time, while the lane was giving it out.
        """
        rows = None
        while rows is None:
            try:
                rows = await self.store.get(ids)
            except UnavailableError as error:
                if not self.running:
                    return  # the next start reads everything anew
                self._step_back(error)
                await asyncio.sleep(AWAY_S)
        for row in rows:
            key = self.key_of(row.flow)
            wall = now + self.clock.ahead()
            waits = row.state == State.PENDING and (row.expires_at is None or row.expires_at > wall)
            if waits and key is not None and self.owns(row.flow) and row.id not in self.agenda.out:
                self.agenda.offer(
                    row.flow, key, Entry(row.turn, row.id, row.expires_at, row.recipient, row.group)
                )
        self.wake()

    def _put_back(self, released: Sequence[Release]) -> None:
        for release in released:
            self.agenda.withdrawn(release.entry.id)
            flow = release.flow
            self.agenda.flow(flow.number, flow.key).put_back(release.entry)
            self.agenda.offer(flow.number, flow.key, release.entry)

    def _step_back(self, error: UnavailableError) -> None:
        """The store cannot write: send nothing until it can, since no hand-over could be marked."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._tell_at:
            self._tell_at = loop.time() + TELL_AGAIN_S
            log.warning("store away", reason=str(error))
        self.away = True
        loop.call_later(AWAY_S, self._return)

    def _return(self) -> None:
        self.away = False
        self.wake()

    # -- settling

    def _over(self, life: int, ended: Ended) -> None:
        """A call ended: its account learns at once, the store in the next batch."""
        message, verdict = ended.message, ended.verdict
        if life != self._life:
            _told_late([message.id])
            return
        if ended.outcome is None:
            self._withheld(message, ended.release)
            return
        release = self.agenda.settled(message.id, ended.finished, spent=verdict.spent)
        if verdict.note is not None and release is not None:
            self._learn(verdict.note, release.account)
            if not verdict.note.recipient and not verdict.note.group:
                self.agenda.touched(release.lane, release.account)
        self._gather(ended)

    def _gather(self, ended: Ended) -> None:
        self._ended.append(ended)
        if not self._settling:
            self._settling = True
            self._spawn(self._settle())

    def _learn(self, note: AccountNote, account: Account) -> None:
        if note.stopped is not None:
            account.stopped = note.stopped
        if note.flood_until is None:
            return
        for kind, value in (("recipient", note.recipient), ("group", note.group)):
            if value:
                self.agenda.block(note.account, kind, value, note.flood_until)
                return
        account.block(note.flood_until, note.asked_until)

    async def _settle(self) -> None:
        """Write endings until there are none left: what ends during one commit goes into the next."""
        while self._ended:
            await self._settle_batch(*self._take_ended())
        self._settling = False

    def _take_ended(self) -> tuple[int, list[Ended]]:
        batch, ended, self._ended = self._batch, self._ended, []
        self._batch += 1
        self._writing.add(batch)
        return batch, ended

    async def written(self) -> None:
        """Wait until every call that has ended by now has its journal line on disk, however long that takes."""
        awaited = {*self._writing, self._batch} if self._ended else set(self._writing)
        while awaited & self._writing or (self._ended and self._batch in awaited):
            self._wrote.clear()
            await self._wrote.wait()

    async def _settle_batch(self, batch: int, ended: list[Ended]) -> None:
        now = self.clock.now()
        settlements = [e.verdict.settlement for e in ended]
        notes = [e.verdict.note for e in ended if e.verdict.note is not None]
        follow_ups = [
            f
            for e in ended
            if e.message.callback_url and (f := self.follow_up(e.message, e.verdict.settlement))
        ]
        rows, flows = [f[0] for f in follow_ups], [f[1] for f in follow_ups]
        stale: list[int] | None = None
        while stale is None:
            try:
                stale = await self.store.settle(settlements, notes, rows, flows, now)
            except EndedError:
                _told_late([e.message.id for e in ended])
                ended, follow_ups, stale = [], [], []
            except UnavailableError as error:
                # The outcome is known only here: keep it and try again, whatever it takes.
                self._step_back(error)
                await asyncio.sleep(AWAY_S)
        self._writing.discard(batch)
        self._wrote.set()
        for id_ in stale:
            log.warning("stale settlement changed nothing", message=id_)
        gone = set(stale)
        for each in ended:
            if each.message.id not in gone:
                self._after(each)
        if follow_ups:
            self.when_new(follow_ups)
        self.happenings.settled([e for e in ended if e.message.id not in gone])
        self.wake()

    def _after(self, ended: Ended) -> None:
        """Put a message that goes on waiting back where it belongs."""
        made, message = ended.verdict.settlement, ended.message
        if made.state == _PENDING:
            entry = Entry(
                made.turn, message.id, message.expires_at, made.moved_to or message.recipient, message.group
            )
            flow = ended.release.flow
            self.arrived(flow.number, flow.key, entry)
        elif made.state == _RETRYING:
            self.when_due(made.due_at)


def _told_late(ids: Sequence[int]) -> None:
    """This node was ended while these calls ran; whoever followed has settled them."""
    for id_ in ids:
        log.warning("late settlement refused: this node was ended meanwhile", message=to_text(id_))
