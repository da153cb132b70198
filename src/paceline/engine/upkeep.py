"""What has its own time: messages that become due or expire, and the cleaning of what has ended."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from paceline.clock import NOISE_MS, Clock
from paceline.engine.alarm import Alarm
from paceline.engine.audit_clock import live_document
from paceline.engine.directory import Directory
from paceline.engine.dispatcher import Dispatcher
from paceline.model.errors import PacelineError
from paceline.model.messages import FlowKey
from paceline.model.states import State
from paceline.stores.base import Filter, Store, StoredMessage

Work = Callable[[], Awaitable[int | None]]

SLICE = 1000
"""Rows changed in one transaction: small enough that sending never waits for upkeep."""
CLEAN_EVERY_MS = 600_000
PLACES_MS = 600_000
"""Places of one recipient or group are kept for so long after they were free: longer than clocks are apart."""
AWAY_MS = 1000
LOOK_MS = 2000
"""While a message waits for a moment of the wall clock, it is looked so often whether somebody set that clock."""

log = structlog.get_logger("paceline.upkeep")


class Upkeep:
    """Alarms: the next due moment, the next expiry, the next cleaning, and the next look at the wall clock.

    The moments of scheduled messages and expiries are the wall clock's; alarms run on the clock that never steps.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        directory: Directory,
        dispatcher: Dispatcher,
        keys: dict[int, FlowKey],
        expired: Callable[[list[StoredMessage]], None],
        trace_ms: int,
    ) -> None:
        """`keys` are the flows by number; `expired` is told which messages ended unsent."""
        self._store, self._clock, self._directory, self._dispatcher = store, clock, directory, dispatcher
        self._keys = keys
        self._expired = expired
        self._trace_ms = trace_ms
        self._alarms: dict[Work, Alarm] = {
            self._stepped: Alarm(clock, lambda: self._begin(self._stepped)),
            self._promote: Alarm(clock, lambda: self._begin(self._promote)),
            self._expire: Alarm(clock, lambda: self._begin(self._expire)),
            self._clean: Alarm(clock, lambda: self._begin(self._clean)),
        }
        self.cleans: Callable[[], bool] = lambda: True
        """Whether this process is the one that cleans."""
        self._looks = Alarm(clock, self._look)
        self.cleanable: Callable[[], int | None] = lambda: None
        """Only messages made before this moment may be cleaned; None: all."""
        self._ahead = 0
        self._busy: dict[Work, asyncio.Task[None]] = {}
        self._again: set[Work] = set()

    def start(self) -> None:
        """Look once at everything; from then on the alarms ring when there is something to do."""
        self.look()
        self._alarms[self._clean].set(self._clock.now() + 30_000)

    async def stop(self) -> None:
        """Ring no more, and let what is being written be written."""
        for alarm in (self._looks, *self._alarms.values()):
            alarm.cancel()
        if self._busy:
            await asyncio.wait(set(self._busy.values()))
        for alarm in (self._looks, *self._alarms.values()):
            alarm.cancel()

    def look(self) -> None:
        """There may be more to promote or to end than the alarms know of."""
        self._begin(self._promote)
        self._begin(self._expire)

    def due_at(self, moment: int) -> None:
        """A retrying message becomes due then, on the clock that never steps."""
        self._alarms[self._promote].earlier(moment)

    def scheduled_at(self, moment: int) -> None:
        """A scheduled message becomes due then, by the wall clock."""
        self._alarms[self._promote].earlier(moment - self._clock.ahead())
        self._watch()

    def expires_at(self, moment: int) -> None:
        """A waiting message expires then, by the wall clock."""
        self._alarms[self._expire].earlier(moment - self._clock.ahead())
        self._watch()

    def _watch(self) -> None:
        """A moment is waited for: see to it that a step of the wall clock is noticed."""
        self._looks.earlier(self._clock.now() + LOOK_MS)

    def _begin(self, work: Work) -> None:
        if work in self._busy:
            self._again.add(work)
            return
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._busy[work] = task

    async def _guarded(self, work: Work) -> None:
        try:
            next_moment = await work()
            if next_moment is not None:
                self._alarms[work].earlier(next_moment)
        except PacelineError as error:
            log.warning("upkeep will try again", work=getattr(work, "__name__", ""), reason=str(error))
            self._alarms[work].earlier(self._clock.now() + AWAY_MS)
        finally:
            self._busy.pop(work, None)
        if work in self._again:
            self._again.discard(work)
            self._alarms[work].earlier(self._clock.now())

    async def _promote(self) -> int | None:
        while True:
            promoted = await self._store.promote(self._clock.now(), SLICE, self._clock.ahead)
            for number, entry in promoted.entries:
                key = self._keys.get(number)
                if key is None:
                    self._keys.update(await self._store.flow_keys())
                    key = self._keys[number]
                self._dispatcher.arrived(number, key, entry)
            if len(promoted.entries) < SLICE:
                if promoted.next_due is not None:
                    self._watch()
                return promoted.next_due

    async def _expire(self) -> int | None:
        while True:
            expired = await self._store.expire(self._clock.now(), SLICE, self._clock.ahead)
            if expired.ids:
                self._expired(await self._store.get(expired.ids))
            if len(expired.ids) < SLICE:
                if expired.next_expiry is not None:
                    self._watch()
                return expired.next_expiry

    def _look(self) -> None:
        """Compare the clocks, which is all there is to do as long as nobody sets the wall clock.

        It ends when nothing waits for a moment any more, and begins with the next message that does.
        """
        if abs(self._clock.ahead() - self._ahead) > NOISE_MS:
            self._begin(self._stepped)
        if any(self._alarms[work].is_set or work in self._busy for work in (self._promote, self._expire)):
            self._watch()

    async def _stepped(self) -> int | None:
        """The wall clock was set: write it down for an audit, and look anew at what waits for its moments."""
        ahead = self._clock.ahead()
        log.warning("the wall clock was set", ms=ahead - self._ahead, since_start_ms=ahead)
        self._begin(self._promote)
        self._begin(self._expire)
        await self._store.put([live_document(self._clock.now(), ahead)])
        self._ahead = ahead
        return None

    async def _clean(self) -> int | None:
        if not self.cleans():
            return self._clock.now() + CLEAN_EVERY_MS
        now = self._clock.now()
        for name in list(self._directory.queues):
            kept = self._directory.queue(name).retention
            made = self.cleanable()
            done = Filter(queue=(name,), state=(State.COMPLETED,), created_to=made)
            other = Filter(
                queue=(name,), state=(State.FAILED, State.CANCELLED, State.EXPIRED), created_to=made
            )
            if kept.completed_ms is not None:
                await self._slices(done, now - kept.completed_ms, None)
            if kept.completed_count is not None:
                await self._slices(done, now, kept.completed_count)
            if kept.failed_ms is not None:
                await self._slices(other, now - kept.failed_ms, None)
        # Windows are rebuilt from the journal, so it is kept at least as long as the longest of them.
        while await self._store.clean_journal(now - self._journal_ms(), SLICE) == SLICE:
            continue
        nodes = self._store.nodes
        while nodes is not None and await nodes.clean_places(now - PLACES_MS, SLICE):
            continue
        return self._clock.now() + CLEAN_EVERY_MS

    async def _slices(self, wanted: Filter, before: int | None, keep: int | None) -> None:
        while await self._store.clean(wanted, before, keep, SLICE) == SLICE:
            continue

    def _journal_ms(self) -> int:
        spans = [limit.span_ms for spec in self._directory.accounts.values() for limit in spec.limits]
        spans += [rule.limit.span_ms for rule in self._directory.rules.values()]
        monthly = any(spec.quota for spec in self._directory.accounts.values())
        return max(self._trace_ms, 2 * max(spans, default=0), 32 * 86_400_000 if monthly else 0)
