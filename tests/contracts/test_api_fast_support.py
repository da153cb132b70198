"""What the tests of the fast lane share: a server with a real engine, and connections that speak bytes."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from paceline import wiring
from paceline.api.app import build
from paceline.api.server import Server
from paceline.channels.handler import Job
from paceline.config import Settings
from paceline.engine.keys import SYSTEM
from paceline.engine.service import Service

LATER: dict[str, Any] = {"channel": "handler", "kind": "echo", "delay": "1h"}
ACCEPTED = b"HTTP/1.1 202 Accepted\r\n"
_VARIES = re.compile(rb'"id":"[0-9a-z]{13}"|\d{4}-\d\d-\d\dT[\d:.]+Z|date: [^\r]+|message [0-9a-z]{13}')


async def echo(job: Job) -> Any:
    return job.payload


class Talk:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def hear(self) -> bytes:
        """One whole answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        size = re.search(rb"content-length: (\d+)", head)
        assert size, head
        return head + await asyncio.wait_for(self.reader.readexactly(int(size[1])), 10)

    async def ask(self, *parts: bytes) -> bytes:
        self.say(*parts)
        return await self.hear()

    async def ends(self, seconds: float = 10) -> bytes:
        """Everything up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), seconds)


class Place:
    """A server with a real engine, and a count of what took the fast lane."""

    def __init__(self, service: Service, server_: Server, key: str) -> None:
        self.service, self.server, self.key = service, server_, key
        self.taken = 0
        self.talks: list[Talk] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.adds = 0
        self.error: Exception | None = None
        self._take, self._add = service.messages.take, service.core.store.add
        service.messages.take = self.count  # type: ignore[assignment,method-assign]  # counted on its way
        service.core.store.add = self.add  # type: ignore[assignment,method-assign]  # held back at will

    def count(self, *given: Any) -> None:
        self._take(*given)
        self.taken += 1

    def add(self, *given: Any) -> Any:
        return asyncio.ensure_future(self._slow(*given))

    async def _slow(self, *given: Any) -> Any:
        self.adds += 1
        error, self.error = self.error, None
        added = None if error else await self._add(*given)
        await self.gate.wait()
        if error:
            raise error
        return added

    async def talk(self) -> Talk:
        self.talks.append(Talk(*await asyncio.open_connection("127.0.0.1", self.server.port)))
        return self.talks[-1]

    def request(self, body: Any = None, *headers: bytes, key: str | None = None, line: bytes = b"") -> bytes:
        raw = body if isinstance(body, bytes) else json.dumps(LATER | (body or {})).encode()
        lines = [
            line or b"POST /api/v1/messages HTTP/1.1", b"Host: localhost", b"Content-Type: application/json",
            b"Authorization: Bearer " + (key or self.key).encode(), *headers,
        ]  # fmt: skip
        if not any(each.lower().startswith(b"content-length") for each in headers):
            lines.append(b"Content-Length: %d" % len(raw))
        return b"\r\n".join(lines) + b"\r\n\r\n" + raw

    async def learned(self, request: bytes) -> Talk:
        """A connection over which the head of this request has been learned."""
        talk = await self.talk()
        assert (await talk.ask(request)).startswith(ACCEPTED)
        return talk

    async def ordinary(self, request: bytes) -> bytes:
        """The answer of the ordinary path: what arrives in pieces never takes the fast lane."""
        talk, taken = await self.talk(), self.taken
        talk.say(request[:9])
        await asyncio.sleep(0.02)
        answer = await talk.ask(request[9:])
        assert self.taken == taken
        talk.writer.close()
        return answer

    async def stored(self, **query: str) -> int:
        found = await self.service.messages.find(SYSTEM, {k: [v] for k, v in query.items()}, None, 1000)
        return len(found["items"])


def same(answer: bytes) -> bytes:
    return _VARIES.sub(b"*", answer)


@contextlib.asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Place]:
    """The place, closed with all its connections."""
    settings = Settings(data=tmp_path, max_body=100_000)
    service = await wiring.open_service(settings, {"echo": echo})
    serving = Server(build(service, settings), "127.0.0.1", 0)
    serving.listen()
    running = asyncio.ensure_future(serving.serve())
    while not serving.started:
        await asyncio.sleep(0.01)
    place = Place(service, serving, (tmp_path / "admin.key").read_text().strip())
    try:
        yield place
    finally:
        place.gate.set()
        for talk in place.talks:
            talk.writer.close()
        serving.end()
        await asyncio.wait_for(running, 10)
        await service.close(1)


async def test_the_harness_tells_what_took_the_lane(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        talk = await place.learned(place.request())
        assert (place.taken, place.adds, await place.stored()) == (0, 1, 1)
        await talk.ask(place.request())
        assert (place.taken, place.adds, await place.stored()) == (1, 2, 2)
