"""A way to a PostgreSQL server on which a connection can be lost at the worst moment. Not tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

_COMMIT = b"COMMIT\x00"


class Cut(Enum):
    """What becomes of the next COMMIT."""

    BEFORE = "it never reaches the server, and the connection is gone"
    AFTER = "the server makes it, and its answer is lost with the connection"
    HALF = "the server makes it and still believes in the connection, which is gone for the client"
    SILENT = "it never reaches the server, and nobody is told"
    DOWN = "as AFTER, and the server cannot be reached for a while"


class Way:
    """Hands everything on between clients and the server, until it is told to cut."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self.url = ""
        self.next: Cut | None = None
        self.cuts = 0
        self.down = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: list[asyncio.StreamWriter] = []

    async def begin(self) -> asyncio.Server:
        serving = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = serving.sockets[0].getsockname()[1]
        user = self._server.username or "postgres"
        self.url = urlunsplit(self._server._replace(netloc=f"{user}@127.0.0.1:{port}"))
        return serving

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.close()
            return
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # a task runs this
        there = await asyncio.open_connection(self._server.hostname, self._server.port or 5432)
        self._open += [writer, there[1]]
        back = asyncio.create_task(self._hand_on(there[0], writer))
        self._tasks.add(back)
        while data := await self._read(reader):
            if self.next is None or _COMMIT not in data:
                there[1].write(data)
                continue
            cut, self.next = self.next, None
            self.cuts += 1
            self.down = cut is Cut.DOWN
            if cut is Cut.SILENT:
                await asyncio.Event().wait()
            if cut is not Cut.BEFORE:
                back.cancel()  # the answer comes no further than this
                there[1].write(data)
                await there[0].read(1)
            writer.transport.abort()
            if cut is not Cut.HALF:
                there[1].transport.abort()
            return
        there[1].close()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            writer.write(data)
        writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        with suppress(ConnectionError):
            return await reader.read(1 << 20)
        return b""

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[Way]:
    """A way to this server for as long as the block runs."""
    way = Way(url)
    serving = await way.begin()
    try:
        yield way
    finally:
        serving.close()
        way.end()
        await asyncio.sleep(0)
