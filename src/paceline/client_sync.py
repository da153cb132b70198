"""The async client for code without an event loop: one thread runs the loop, every call waits for its answer."""

import asyncio
import atexit
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from paceline.client import Paceline

T = TypeVar("T")


class Sync:
    """Every call of a client, without ``await``: ``app.sync.send(...)``, ``app.sync.accounts.list()``.

    Async iterators become plain ones. Use it as a context manager, or `close` it when you are done.
    """

    def __init__(self, app: "Paceline") -> None:
        """Start no thread yet."""
        self._app = app
        self._loop: _LoopThread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _turned(getattr(self._app, name), self._running)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._app) if not name.startswith("_"))})

    def close(self) -> None:
        """Close the client, and end the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.run(self._app.close())
            loop.stop()

    def _running(self) -> "_LoopThread":
        with self._lock:
            if self._loop is None:
                self._loop = _LoopThread()
            return self._loop


class _Group:
    """A part of the client, such as ``accounts``, with its calls turned."""

    def __init__(self, group: Any, running: "Callable[[], _LoopThread]") -> None:
        self._group, self._running = group, running

    def __getattr__(self, name: str) -> Any:
        return _turned(getattr(self._group, name), self._running)


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paceline-sync", daemon=True)
        self._thread.start()
        self._at_exit = weakref.WeakMethod(self.stop)
        atexit.register(_stop, self._at_exit)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for what it returns or raises. Ctrl-C cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this is the client's own event loop: await the async call instead")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and the thread."""
        if self._loop.is_closed():
            return
        atexit.unregister(_stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _stop(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    stop = method()
    if stop is not None:
        stop()


def _turned(value: Any, running: Callable[[], _LoopThread]) -> Any:
    """The plain form of a client's attribute."""
    if inspect.isasyncgenfunction(value):
        return lambda *args, **kwargs: _iterate(value(*args, **kwargs), running())
    if inspect.iscoroutinefunction(value):
        return lambda *args, **kwargs: running().run(value(*args, **kwargs))
    if type(value).__module__ == "paceline.client_groups":
        return _Group(value, running)
    return value


def _iterate(items: AsyncIterator[T], loop: _LoopThread) -> Iterator[T]:
    async def step() -> T:
        return await anext(items)

    try:
        while True:
            try:
                yield loop.run(step())
            except StopAsyncIteration:
                return
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            loop.run(close())
