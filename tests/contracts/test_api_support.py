"""What the tests of the HTTP interface share: the real application on a real server, and a client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import uvicorn
from prometheus_client import CollectorRegistry, Gauge

from paceline.api.app import App, build
from paceline.config import Settings
from paceline.engine.events import StreamEvent
from paceline.engine.keys import Caller
from paceline.engine.messages import Receipt
from paceline.engine.service import Service

KEYS = {
    role: Caller(None, role, role) for role in ("admin", "operator", "sender", "viewer")
} | {"shop": Caller("shop", "admin", "shop")}  # fmt: skip


class Reply:
    """An answer that was read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_problem(self, status: int) -> Any:
        """The members of the problem that it must be."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem["status"] == status
        assert problem["title"] and problem["detail"] and problem["type"].startswith("urn:paceline:problem:")
        assert "Traceback" not in self.body.decode()
        return problem

    def fields(self) -> list[str]:
        """The fields of a 422."""
        return [error["field"] for error in self.is_problem(422)["errors"]]


class Client:
    """Calls the server; JSON bodies unless `data` is given."""

    def __init__(self, session: aiohttp.ClientSession, port: int, key: str | None) -> None:
        self.session = session
        self.port = port
        self.key = key

    def as_(self, key: str | None) -> "Client":
        return Client(self.session, self.port, key)

    async def __call__(
        self, method: str, path: str, body: Any = None, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:  # fmt: skip
        sent = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        if body is not None or data is not None:
            sent["Content-Type"] = "application/json"
        sent |= dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, data=data, headers=sent) as response:
            return Reply(response.status, response.headers, await response.read())


class Scripted:
    """The verbs that a test needs, doing what the test says. Only for what is HTTP's alone."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None
        self.events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self.listeners = 0
        self.pages: list[list[dict[str, Any]]] = []
        self.ended: dict[str, Any] | None = None
        self.ready = True
        self.state = {"ready": False, "reasons": ["the store cannot write"]}
        self.keys = SimpleNamespace(who=KEYS.get)
        self.messages = self.actions = self.watch = self.accounts = self.queues = self

    async def submit(self, caller: Caller, body: dict[str, Any]) -> Receipt:
        self.calls.append(body)
        if self.error is not None:
            raise self.error
        return Receipt("m1", "pending")

    async def submit_batch(
        self, caller: Caller, bodies: list[Any], defaults: dict[str, Any]
    ) -> dict[str, Any]:
        self.calls.append((bodies, defaults))
        return {"batch": "b1", "accepted": [], "rejected": []}

    def outlook(self, id_: str) -> tuple[str | None, list[Any]]:
        return None, []

    async def wait(self, id_: str, seconds: float) -> dict[str, Any] | None:
        if self.ended is None:
            await asyncio.Event().wait()
        return self.ended

    async def find(self, caller: Caller, query: Any, cursor: str | None, limit: int) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.calls.append((caller, query, cursor, limit))
        return {"items": [], "next": None}

    async def get(self, caller: Caller, id_: str) -> dict[str, Any]:
        self.calls.append(id_)
        return {"id": id_}

    async def act(self, caller: Caller, body: Any, dry_run: bool) -> dict[str, Any]:
        self.calls.append((body, dry_run))
        return {"matched": 0}

    async def export(self, caller: Caller, query: Any) -> AsyncIterator[list[dict[str, Any]]]:
        if self.error is not None and not self.pages:
            raise self.error
        for page in self.pages:
            yield page
        if self.error is not None:
            raise self.error

    async def subscribe(self, *given: Any) -> AsyncIterator[StreamEvent | None]:
        self.calls.append(given)
        self.listeners += 1
        try:
            while True:
                yield await self.events.get()
        finally:
            self.listeners -= 1
            self.events.put_nowait(None)

    async def list(self, caller: Caller, *page: Any) -> dict[str, Any]:
        self.calls.append((caller, *page))
        return {"items": [], "next": None}

    def metrics(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        Gauge("paceline_up", "1", registry=registry).set(1)
        return registry


@contextlib.asynccontextmanager
async def served(
    service: Any, settings: Settings, key: str | None = "admin"
) -> AsyncIterator[tuple[Client, App]]:
    """The application on a free port of this machine."""
    app = build(cast("Service", service), settings)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", http="httptools", ws="none", loop="asyncio",
        proxy_headers=False, server_header=False,
    )  # fmt: skip
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        await server.startup(sockets=[listening])
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                yield Client(session, listening.getsockname()[1], key), app
        finally:
            app.stop()
            for connection in list(server.server_state.connections):
                connection.shutdown()
            await asyncio.gather(*server.server_state.tasks)
            for each in server.servers:
                each.close()


async def raw(port: int, *parts: bytes) -> bytes:
    """Send bytes as they are, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer


async def test_the_harness_serves_the_application() -> None:
    async with served(Scripted(), Settings()) as (client, _):
        assert (await client("GET", "/health/live")).json == {"status": "live"}
