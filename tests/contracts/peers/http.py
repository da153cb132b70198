"""An HTTP peer on loopback that records what it is asked and misbehaves as it is told."""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Raw:
    """Bytes as they are; then the connection is kept open, or closed."""

    data: bytes
    close: bool = True


@dataclass
class Drip:
    """A beginning, and then piece after piece for ever, a little while apart."""

    data: bytes
    piece: bytes = b" "
    pause: float = 0.02


class Hang:
    """Read the request and never answer."""


class CutEarly:
    """Cut the connection when the head has been read, before the body."""


class CutLate:
    """Cut the connection when the whole request has been read."""


Act = Reply | Raw | Drip | Hang | CutEarly | CutLate


class HttpPeer:
    """Plays its script, one act for each request, then answers everything with `usual`."""

    def __init__(self, *script: Act, usual: Act | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.script = deque(script)
        self.usual = usual or Reply()
        self.seen: list[Seen] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        number = self.connections
        try:
            while await self._one(reader, writer, number):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        act = self.script.popleft() if self.script else self.usual
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        if isinstance(act, CutEarly):
            self.seen.append(Seen(method, path, headers, b"", number))
            writer.transport.abort()
            return False
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen.append(Seen(method, path, headers, body, number))
        self.asked.set()
        if isinstance(act, CutLate):
            writer.transport.abort()
            return False
        if isinstance(act, Hang):
            await asyncio.Event().wait()
        if isinstance(act, Drip):
            writer.write(act.data)
            while True:
                writer.write(act.piece)
                await writer.drain()
                await asyncio.sleep(act.pause)
        if isinstance(act, Raw):
            writer.write(act.data)
            await writer.drain()
            if not act.close:
                await asyncio.Event().wait()
            return False
        if isinstance(act, Reply):
            lines = {"Content-Type": "application/json", "Content-Length": str(len(act.body))} | act.headers
            text = (
                f"HTTP/1.1 {act.status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n"
            )
            writer.write(text.encode() + act.body)
            await writer.drain()
        return True


async def closed_port() -> int:
    """A port of loopback that nobody listens at."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
