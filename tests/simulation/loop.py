"""An event loop whose time is a number: nothing sleeps, and one seed decides what asyncio leaves open.

asyncio promises that callbacks run in the order in which they were asked for, and so does this loop. What it
does not promise is drawn: which of several timers that are due at the same moment comes first, whether a timer
rings a fraction early or late (uvloop counts in whole milliseconds), and how long a callback takes.
"""

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Time:
    """The true time of a world: microseconds since it began. Never steps; nobody inside can read it."""

    __slots__ = ("us",)

    def __init__(self) -> None:
        self.us = 0


class _Task(asyncio.Task[Any]):
    """A task with a number for a hash: sets of tasks are then in the same order in every process."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> None:
        self.number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one process. It is stepped from outside, one callback at a time, and can be cut anywhere."""

    def __init__(self, time: Time, chance: Random, cost_us: int, coarse: bool) -> None:
        """`cost_us`: most that a callback takes; `coarse`: timers count in whole milliseconds."""
        super().__init__()
        self._time = time
        self._chance = chance
        self.cost_us = cost_us
        self.coarse = coarse
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, int, asyncio.TimerHandle]] = []
        self._tasks: list[_Task] = []
        self._round = 0
        self._number = 0
        self.steps = 0
        self.frozen_until = 0  # the process is stopped (SIGSTOP, a long pause of the machine)
        self.failed: Callable[[str], None] = lambda _text: None

    # -- what asyncio asks for

    def time(self) -> float:
        return self._time.us / 1e6

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time.us / 1e6 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        now = self._time.us
        us = max(now, round(when * 1e6))
        if self.coarse:
            us = now + (us - now + 500) // 1000 * 1000
        self._number += 1
        heappush(self._timers, (us, self._chance.getrandbits(16), self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are thrown away when their moment comes."""

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_more: Any,
    ) -> asyncio.Task[T]:
        self._number += 1
        task = _Task(
            self._number, cast("Coroutine[Any, Any, T]", coro), loop=self, name=name, context=context
        )
        self._tasks.append(task)
        if len(self._tasks) > 2000:
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failed(f"{context.get('message')}: {type(error).__name__}: {error}")

    # -- what the world does with it

    @property
    def ready(self) -> bool:
        """Something can run at this moment."""
        now = self._time.us
        return self.frozen_until <= now and (bool(self._soon) or self.next_us <= now)

    @property
    def wakes_us(self) -> int:
        """When it wants to run next, as long as nothing comes from outside."""
        return max(self.frozen_until, self._time.us if self._soon else self.next_us)

    @property
    def next_us(self) -> int:
        """When the next timer rings; far away for never."""
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heappop(timers)
        return timers[0][0] if timers else 1 << 62

    def step(self) -> None:
        """Run one callback. As in asyncio, timers that are due join at the end of a round."""
        if not self._round:
            while self.next_us <= self._time.us:
                self._soon.append(heappop(self._timers)[3])
            self._round = len(self._soon)
        handle = self._soon.popleft()
        self._round -= 1
        self.steps += 1
        if not handle.cancelled():
            events._set_running_loop(self)
            handle._run()
            events._set_running_loop(None)
        if self.cost_us:
            self._time.us += self._chance.randrange(self.cost_us)

    def cut(self) -> None:
        """The process is gone: nothing of it runs any more."""
        self.failed = lambda _text: None
        self._soon.clear()
        self._timers.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch, not in its stub
                coro = task.get_coro()
                try:
                    coro.close()
                except RuntimeError:
                    pass  # it awaited while it was thrown away; nobody is there to see it
        self._soon.clear()
        self._timers.clear()
        self.close()
