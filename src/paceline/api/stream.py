"""Server-sent events: one pump for each listener, ended by whoever leaves first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive, Scope, Send

from paceline.api.answers import SECURITY, encode
from paceline.api.stopping import Stopping
from paceline.engine.events import StreamEvent

_RETRY: Final = b"retry: 3000\n\n"
_HEART_BEAT: Final = b": still here\n\n"
_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    *SECURITY,
)


def frame(event: StreamEvent | None) -> bytes:
    """An event as it stands on the wire; None is the heart beat."""
    if event is None:
        return _HEART_BEAT
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        str(event.id).encode(), event.type.encode(), encode(event.data),
    )  # fmt: skip


class EventStream:
    """An answer that lasts until the client leaves or the server stops; an ASGI application."""

    def __init__(self, events: AsyncIterator[StreamEvent | None], stopping: Stopping) -> None:
        """`events` is closed at the end."""
        self._events = events
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pump events until one side has had enough."""
        # The subscription begins with the first question: ask before the client hears that it listens.
        coming = asyncio.ensure_future(self._next())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
        works = (self._pump(coming, send), _until_gone(receive), self._stopping.wait())
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            if scope["method"] != "HEAD":
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done = [task for task in tasks if task.done()]
            for task in (coming, *tasks):
                task.cancel()
            await asyncio.gather(coming, *tasks, return_exceptions=True)
            await _close(self._events)
        for task in done:
            task.result()
        await send({"type": "http.response.body", "body": b""})

    async def _next(self) -> StreamEvent | None:
        return await anext(self._events)

    async def _pump(self, coming: "asyncio.Future[StreamEvent | None]", send: Send) -> None:
        try:
            await send({"type": "http.response.body", "body": frame(await coming), "more_body": True})
        except StopAsyncIteration:
            return
        async for event in self._events:
            await send({"type": "http.response.body", "body": frame(event), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(events: AsyncIterator[StreamEvent | None]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):  # it is closing already
            await close()
