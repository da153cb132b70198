"""An elastic pool of threads for plain Python handlers.

It starts with `least` threads, adds 10 when its queue is over 80 % full (up to `most`) and lets 5 go when it
is under 20 %. The size of the queue is bounded, so a flood of jobs waits in the store, not in memory.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

GROW, SHRINK = 10, 5
FULL, EMPTY = 0.8, 0.2


class ThreadPool:
    """Runs callables in threads; results come back on the event loop."""

    def __init__(self, least: int = 10, most: int = 100, queue: int = 100) -> None:
        """No thread is started before the first job."""
        self.least, self.most, self.queue_max = least, most, queue
        self.completed = 0
        self.active = 0
        self._jobs: deque[
            tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]
        ]
        self._jobs = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._surplus = 0
        self._closed = False

    @property
    def figures(self) -> dict[str, float]:
        """Threads, active ones, jobs in line, jobs completed, share of threads at work."""
        with self._changed:
            return {
                "threads": self._threads,
                "active": self.active,
                "queue_size": len(self._jobs),
                "completed": self.completed,
                "usage": self.active / self._threads if self._threads else 0.0,
            }

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run `work(*args)` in a thread and answer what it returns, or raise what it raises.

        A cancelled caller waits on: a thread cannot be stopped, and its result still counts.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._jobs.append((loop, future, work, args))
            self._resize()
            self._changed.notify()
        return await future

    def close(self) -> None:
        """Take no more jobs; threads end when they have nothing left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _resize(self) -> None:
        """Called with the lock held, at each job that comes."""
        wanted = self._threads - self._surplus
        fill = len(self._jobs) / self.queue_max
        if wanted < self.least:
            wanted = self.least
        elif fill > FULL:
            wanted = min(self.most, wanted + GROW)
        elif fill < EMPTY and wanted > self.least and self.active < wanted - SHRINK:
            self._surplus = min(self._threads - self.least, self._surplus + SHRINK)
            return
        for _ in range(wanted - (self._threads - self._surplus)):
            if self._surplus:
                self._surplus -= 1
            else:
                self._threads += 1
                threading.Thread(target=self._work, name=f"handler-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed and not self._surplus:
                    self._changed.wait()
                if not self._jobs or self._surplus:
                    if self._surplus:
                        self._surplus -= 1
                    self._threads -= 1
                    return
                loop, future, work, args = self._jobs.popleft()
                self.active += 1
            try:
                result, error = work(*args), None
            except BaseException as raised:  # noqa: BLE001 - also SystemExit: a handler never ends the process
                result, error = None, raised
            with self._changed:
                self.active -= 1
                self.completed += 1
            _answer(loop, future, result, error)


def _answer(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    def deliver() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception):
            future.set_exception(error)
        else:
            future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        pass  # the loop has closed: nobody waits for the answer
