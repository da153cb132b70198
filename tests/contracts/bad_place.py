"""Where bad input is tried: the real server over a real store, with an account of each kind and something waiting."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from paceline import wiring
from paceline.api.routes import PREFIX
from paceline.channels.handler import Job
from paceline.config import Settings
from paceline.engine.service import Service
from tests.contracts.test_api_support import Client, Reply, served

LATER: Final[dict[str, Any]] = {"channel": "handler", "kind": "echo", "delay": "1h"}
PEER: Final[dict[str, Any]] = {"channel": "smtp", "settings": {"host": "127.0.0.1", "from": "a@example.com"}}
BOT: Final[dict[str, Any]] = {"channel": "telegram-bot", "settings": {"token": "123456:" + "A" * 35}}


async def echo(job: Job) -> Any:
    return job.payload


class Place:
    """A running server, one waiting message, and what is stored to compare with."""

    def __init__(self, call: Client, service: Service, id_: str) -> None:
        self.call, self.service, self.id = call, service, id_

    async def ask(self, method: str, path: str, data: Any = b"", **headers: str) -> Reply:
        """Bytes as they are."""
        return await self.call(method, PREFIX + path.replace("{id}", self.id), data=data, headers=headers)

    async def api(self, method: str, path: str, body: Any = None, key: str | None = None) -> Reply:
        """JSON, with another key where one is given."""
        call = self.call if key is None else self.call.as_(key)
        return await call(method, PREFIX + path.replace("{id}", self.id), body)

    async def key(self, role: str, tenant: str | None = None) -> str:
        """A new key."""
        name = f"{role}-{tenant or 'all'}"
        made = await self.api("POST", "/keys", {"name": name, "role": role, "tenant": tenant})
        assert made.status == 201, made.body
        return str(made.json["key"])

    async def stored(self) -> list[Any]:
        """All that a request could have changed."""
        paths = ("/messages?limit=1000", "/accounts", "/limits", "/queues", "/templates", "/keys")
        answers = [await self.ask("GET", path) for path in paths]
        return [
            [{name: value for name, value in item.items() if name != "why"} for item in answer.json["items"]]
            for answer in answers
        ]


@asynccontextmanager
async def placed(folder: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> AsyncIterator[Place]:
    """The place; in the end nothing may have been logged that nobody foresaw."""
    given = Settings(data=folder, **{"max_body": 256 * 1024} | settings)
    caplog.set_level(logging.WARNING)
    service = await wiring.open_service(given, {"echo": echo})
    before = structlog.get_config()
    try:
        with capture_logs() as logs:
            key = (folder / "admin.key").read_text().strip()
            async with served(service, given, key) as (call, _):
                await call("PUT", PREFIX + "/accounts/mail", PEER)
                await call("PUT", PREFIX + "/accounts/bot", BOT)
                yield Place(call, service, (await call("POST", PREFIX + "/messages", LATER)).json["id"])
    finally:
        structlog.configure(**before)
        await service.close(1)
    assert [one for one in logs if one["log_level"] in {"error", "critical"} or "exc_info" in one] == []
    assert caplog.records == []
