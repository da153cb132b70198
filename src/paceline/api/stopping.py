"""Telling requests that last (streams, waits) that the server stops."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopping:
    """Set once, when the server begins to stop."""

    def __init__(self) -> None:
        """Not stopping yet."""
        self._event = asyncio.Event()

    def set(self) -> None:
        """The server stops: what lasts ends now."""
        self._event.set()

    async def wait(self) -> None:
        """Until the server stops."""
        await self._event.wait()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` answers, or None when the server stops first; `work` is then cancelled."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)
