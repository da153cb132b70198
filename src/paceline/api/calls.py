"""What a handler sees of a request, and the table rows that name handlers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive

from paceline.api.bodies import (
    Headers,
    Query,
    flag,
    one,
    parse_object,
    read,
    require_json,
    whole,
)
from paceline.api.problems import RefusedError, invalid
from paceline.api.stopping import Stopping
from paceline.config import Settings
from paceline.engine.keys import Caller
from paceline.engine.service import Service

MOST_IN_A_PAGE = 1_000


class Call:
    """One authorised request."""

    __slots__ = ("_headers", "_receive", "caller", "path", "query", "service", "settings", "stopping")

    def __init__(
        self, service: Service, settings: Settings, stopping: Stopping, caller: Caller,
        path: Mapping[str, str], query: Query, headers: Headers, receive: Receive,
    ) -> None:  # fmt: skip
        """Keep the parts; `path` and `query` hold the parameters."""
        self.service = service
        self.settings = settings
        self.stopping = stopping
        self.caller = caller
        self.path = path
        self.query = query
        self._headers = headers
        self._receive = receive

    @property
    def name(self) -> str:
        """The name or id in the address; the first, where there are two."""
        return next(iter(self.path.values()))

    def only_installation(self) -> None:
        """Refuse the key of a tenant: this is about everybody."""
        if self.caller.tenant is not None:
            raise RefusedError(403, "this takes a key of the whole installation; this one is of a tenant")

    def header(self, name: bytes) -> str | None:
        """A header's text."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self) -> dict[str, Any]:
        """The JSON object that was sent."""
        require_json(self._headers)
        return parse_object(await read(self._receive, self._headers, self.settings.max_body))

    def one(self, name: str) -> str | None:
        """A parameter that may stand once."""
        return one(self.query, name)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """A parameter with fixed values."""
        value = one(self.query, name)
        if value is not None and value not in choices:
            raise invalid(f"/{name}", f"must be one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """A parameter that is true or false."""
        return flag(self.query, name)

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        """A parameter that is a whole number."""
        return whole(self.query, name, least, most, default)

    def page(self) -> tuple[str | None, int]:
        """The cursor and the limit of a list."""
        return one(self.query, "cursor"), whole(self.query, "limit", 1, MOST_IN_A_PAGE, 50)


Handler = Callable[[Call], Awaitable[Any]]
"""Answers data for a 200, an `Answer`, or another ASGI application (a stream)."""


class Endpoint(msgspec.Struct, frozen=True):
    """One row of the routing table. Paths are written as in OpenAPI and begin behind ``/api/v1``."""

    method: str
    path: str
    role: str
    handle: Handler
    query: frozenset[str] = frozenset()


PAGED = frozenset({"cursor", "limit"})
TENANT = frozenset({"tenant"})
"""A key of the whole installation acts for the tenant that is named."""
