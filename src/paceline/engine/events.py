"""What happened, told to whoever listens: typed events, a bounded memory for those who reconnect."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec

MEMORY = 20_000
"""Events kept for those who come back with the id of the last one they saw."""
BACKLOG = 5_000
"""Events one listener may be behind before it is told that it missed some."""


class StreamEvent(msgspec.Struct, gc=False):
    """One event: `id` grows, `type` is one of the names in the HTTP contract, `data` is what JSON can say."""

    id: int
    type: str
    tenant: str
    queue: str
    account: str
    campaign: str
    data: dict[str, Any]


class Subscriber:
    """One listener's filter and its line of events."""

    def __init__(self, accepts: Callable[[StreamEvent], bool]) -> None:
        """`accepts` decides which events this listener sees."""
        self.accepts = accepts
        self.line: deque[StreamEvent] = deque()
        self.missed = 0
        self.filled = asyncio.Event()

    def push(self, event: StreamEvent) -> None:
        """Take an event, or count it as missed when the listener is too slow."""
        if len(self.line) >= BACKLOG:
            self.missed += 1
        else:
            self.line.append(event)
        self.filled.set()


class _Told(msgspec.Struct, gc=False):
    """Sources that were told together: the first one's id, and how to make an event of each."""

    first: int
    sources: Sequence[Any]
    make: Callable[[int, Any], StreamEvent]

    def events(self) -> Iterator[StreamEvent]:
        """The events, made now."""
        for number, source in enumerate(self.sources, self.first):
            yield self.make(number, source)


class EventBus:
    """Publishes events in order. One that nobody listens to is not even made until somebody asks for it."""

    def __init__(self, start: int) -> None:
        """`start` is the first event id: taken from the clock, so that ids grow over restarts."""
        self._next = start
        self._memory: deque[_Told] = deque()
        self._remembered = 0
        self._subscribers: set[Subscriber] = set()
        self._taps: list[Callable[[StreamEvent], None]] = []

    def tap(self, listener: Callable[[StreamEvent], None]) -> None:
        """Call `listener` with every event, at once; it must be quick and must not raise."""
        self._taps.append(listener)

    def publish(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        tenant: str = "",
        queue: str = "",
        account: str = "",
        campaign: str = "",
    ) -> None:
        """Tell everybody one thing."""
        event = StreamEvent(self._next, type_, tenant, queue, account, campaign, data)
        self.tell((event,), _as_it_is)

    def tell(self, sources: Sequence[Any], make: Callable[[int, Any], StreamEvent]) -> None:
        """Tell everybody many things of a kind: `make` turns an id and a source into its event.

        `sources` is kept; neither it nor what is in it may change afterwards.
        """
        told = _Told(self._next, sources, make)
        self._next += len(sources)
        self._remember(told)
        if not (self._taps or self._subscribers):
            return
        for event in told.events():
            for tap in self._taps:
                tap(event)
            for subscriber in self._subscribers:
                if subscriber.accepts(event):
                    subscriber.push(event)

    def _remember(self, told: _Told) -> None:
        self._memory.append(told)
        self._remembered += len(told.sources)
        while self._remembered - len(self._memory[0].sources) >= MEMORY:
            self._remembered -= len(self._memory.popleft().sources)

    async def listen(
        self, accepts: Callable[[StreamEvent], bool], last: int | None, heartbeat: float
    ) -> AsyncIterator[StreamEvent | None]:
        """Events as they come, first those after `last` that are still remembered; None as a heart beat.

        Where events were missed (forgotten, or the listener was too slow), one of type ``gap`` says so.
        """
        subscriber = Subscriber(accepts)
        self._subscribers.add(subscriber)
        try:
            if last is not None:
                for event in self._resume(last, accepts):
                    yield event
            while True:
                subscriber.filled.clear()
                while subscriber.line:
                    yield subscriber.line.popleft()
                if subscriber.missed:
                    missed, subscriber.missed = subscriber.missed, 0
                    yield self._gap(f"{missed} events were left out because this connection was too slow")
                try:
                    async with asyncio.timeout(heartbeat):
                        await subscriber.filled.wait()
                except TimeoutError:
                    yield None
        finally:
            self._subscribers.discard(subscriber)

    def _resume(self, last: int, accepts: Callable[[StreamEvent], bool]) -> list[StreamEvent]:
        first = self._memory[0].first if self._memory else self._next
        recent = [told for told in self._memory if told.first + len(told.sources) > last + 1]
        found = [event for told in recent for event in told.events() if event.id > last and accepts(event)]
        if last >= self._next:
            found.insert(0, self._gap("your last event is none of this server's; some may be missing"))
        elif last + 1 < first:
            found.insert(0, self._gap("events since your last one are no longer remembered"))
        return found

    def _gap(self, text: str) -> StreamEvent:
        return StreamEvent(self._next - 1, "gap", "", "", "", "", {"reason": text})


def _as_it_is(_number: int, event: StreamEvent) -> StreamEvent:
    return event
