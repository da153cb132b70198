"""A TCP proxy that cuts connections at a chosen place of what goes through, or does not answer at all."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Cut:
    """Where a direction ends: `plus` bytes behind the end of the first `after`; if negative, within it."""

    after: bytes = b""
    plus: int = 0

    def begun(self, seen: bytes) -> int:
        """How many bytes at the end of what was seen may be the beginning of `after`: they are held back."""
        if self.after in seen:
            return 0
        longest = min(len(seen), len(self.after))
        return next((n for n in range(longest, 0, -1) if seen.endswith(self.after[:n])), 0)

    def allowed(self, seen: bytes) -> int | None:
        """How much of what was seen so far may pass, or None while the place has not come."""
        at = seen.find(self.after)
        if at < 0:
            return None
        end = max(0, at + len(self.after) + self.plus)
        return end if len(seen) >= max(end, 1) else None


@dataclass(frozen=True)
class Phase:
    """One way to go wrong. `refuse`: nobody listens. `accept`: accept and reset. `hang`: accept and say nothing."""

    up: Cut | None = None
    down: Cut | None = None
    refuse: bool = False
    accept: bool = False
    hang: bool = False


class Proxy:
    """Stands before `peer`; lets everything through, or goes wrong as `phase` says. Ports are its own."""

    def __init__(self, peer: Callable[[], int]) -> None:
        self.peer = peer
        self.phase: Phase | None = None
        self.connections = 0
        self.cuts = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self) -> Self:
        await self._listen()
        return self

    async def set(self, phase: Phase | None) -> None:
        """From now on, for which the open connections are ended. A port that refuses keeps its number."""
        refused, self.phase = self.phase is not None and self.phase.refuse, phase
        for writer in self._open.values():
            self._abort(writer)
        refuses = phase is not None and phase.refuse
        if refuses and not refused:
            await self._deafen()
        elif refused and not refuses:
            await self._listen()

    async def close(self) -> None:
        await self._deafen()
        for writer in self._open.values():
            self._abort(writer)
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A narrow pipe: what the sender has not got rid of it knows to be unsent.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listener, backlog=1024)

    async def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        task.add_done_callback(self._open.pop)
        self.connections += 1
        phase = self.phase or Phase()
        if phase.accept:
            self._abort(writer)
            return
        if phase.hang:
            await reader.read()
            self._abort(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.peer())
        except OSError:
            self._abort(writer)
            return
        pumps = [
            asyncio.create_task(self._pump(reader, back, phase.up)),
            asyncio.create_task(self._pump(there, writer, phase.down)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._abort(writer)
            self._abort(back)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, cut: Cut | None
    ) -> None:
        """Pass on until one side ends or the cut has come."""
        seen, passed = b"", 0
        try:
            while chunk := await source.read(65_536):
                if cut is not None:
                    seen += chunk
                    if (end := cut.allowed(seen)) is not None:
                        target.write(seen[passed:end])
                        await target.drain()
                        self.cuts += 1
                        return
                    ready = max(passed, len(seen) - cut.begun(seen))
                    chunk, passed = seen[passed:ready], ready
                target.write(chunk)
                await target.drain()
        except (ConnectionError, OSError):
            return

    @staticmethod
    def _abort(writer: asyncio.StreamWriter) -> None:
        """A reset, not a polite end."""
        found: Any = writer.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
