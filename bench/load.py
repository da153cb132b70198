"""A small HTTP load: connections that send the same request again as soon as it is answered."""

import asyncio
import socket
import time


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def request(path: str, body: bytes, key: str) -> bytes:
    """The bytes of a POST."""
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """Sends, waits for the whole answer, sends again."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, as create_connection makes
        transport.write(self.load.raw)  # type: ignore[attr-defined]  # likewise

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        stop = head.find(b"\r\n", start)
        size = int(head[start : stop if stop >= 0 else end])
        if len(self.buffer) < end + 4 + size:
            return
        self.load.answered(head)
        self.buffer = self.buffer[end + 4 + size :]
        if self.load.going and self.transport is not None:
            self.transport.write(self.load.raw)


class Load:
    """`connections` in parallel, each with one request at a time."""

    def __init__(self, port: int, raw: bytes, connections: int) -> None:
        """Not connected yet."""
        self.port, self.raw, self.connections = port, raw, connections
        self.count = 0
        self.going = True

    def answered(self, head: bytes) -> None:
        """Count an answer; one that is no success ends the measurement."""
        if not head.split(b" ", 2)[1].startswith(b"2"):
            raise RuntimeError(f"the server answered {head[:200]!r}")
        self.count += 1

    async def run(self, seconds: float) -> float:
        """Answers a second."""
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            for _ in range(self.connections)
        ]
        before, start = self.count, time.perf_counter()
        await asyncio.sleep(seconds)
        rate = (self.count - before) / (time.perf_counter() - start)
        self.going = False
        await asyncio.sleep(0.2)
        for transport, _ in made:
            transport.close()
        return rate
