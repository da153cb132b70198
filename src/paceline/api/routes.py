"""The routing table, and what happens between an address and its handler."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from paceline.api import accounts, messages, operations, queues, system, watching
from paceline.api.answers import json_answer
from paceline.api.bodies import Headers, Query, one, parse_query
from paceline.api.calls import Call, Endpoint
from paceline.api.door import SAFE, Door
from paceline.api.problems import RefusedError, invalid
from paceline.api.stopping import Stopping
from paceline.config import Settings
from paceline.engine.keys import Caller
from paceline.engine.service import Service
from paceline.model.checks import check_name

PREFIX: Final = "/api/v1"
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *messages.ENDPOINTS, *accounts.ENDPOINTS, *queues.ENDPOINTS, *watching.ENDPOINTS, *system.ENDPOINTS,
    *operations.ENDPOINTS,
)  # fmt: skip
INGEST: Final[Mapping[str, tuple[str, ...]]] = {"/messages": ("POST",), "/messages/batch": ("POST",)}
"""Answered before routing; named here so that 405 and the reference know them."""
_STREAMS: Final = frozenset({"/events"})


class Resource:
    """All methods of one address; an ASGI application."""

    def __init__(
        self, service: Service, settings: Settings, door: Door, stopping: Stopping,
        endpoints: Sequence[Endpoint], elsewhere: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`elsewhere` are methods of this address that are answered by others."""
        self._service = service
        self._settings = settings
        self._door = door
        self._stopping = stopping
        self._by_method = {endpoint.method: endpoint for endpoint in endpoints}
        self._allow = ", ".join(sorted({*self._by_method, *elsewhere}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller and the parameters, then answer with what the handler returns."""
        headers: Headers = dict(scope["headers"])
        method: str = scope["method"]
        endpoint = self._by_method.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise RefusedError(
                405, f"{method[:20]} is not for this address; {self._allow}", headers={"allow": self._allow}
            )
        if method not in SAFE or endpoint.path in _STREAMS:
            self._door.check_origin(headers)
        caller = self._door.require(headers, endpoint.role)
        query = parse_query(scope["query_string"], endpoint.query)
        if not endpoint.query >= messages.FILTERS:
            one(query, "tenant")
        call = Call(
            self._service, self._settings, self._stopping, for_tenant(caller, query),
            scope["path_params"], query, headers, receive,
        )  # fmt: skip
        result = await endpoint.handle(call)
        answer = result if callable(result) else json_answer(result)
        await answer(scope, receive, send)


def for_tenant(caller: Caller, query: Query) -> Caller:
    """The caller as one of the tenant it names; a tenant's own key may name no other."""
    for name in query.get("tenant", ()):
        try:
            check_name(name)
        except ValueError as error:
            raise invalid("/tenant", str(error)) from None
        if caller.tenant not in {None, name}:
            raise RefusedError(403, "this key belongs to a tenant and may not ask for another")
    if caller.tenant is None and len(query.get("tenant", ())) == 1:
        return msgspec.structs.replace(caller, tenant=query["tenant"][0])
    return caller


def api_routes(service: Service, settings: Settings, door: Door, stopping: Stopping) -> list[BaseRoute]:
    """Everything under the prefix, fixed addresses before those with names in them."""
    paths = dict.fromkeys([*INGEST, *(endpoint.path for endpoint in ENDPOINTS)])
    return [
        Route(
            PREFIX + path,
            Resource(service, settings, door, stopping, list(_of(path)), INGEST.get(path, ())),
        )
        for path in sorted(paths, key=lambda path: path.count("{"))
    ]


def _of(path: str) -> Iterable[Endpoint]:
    return (endpoint for endpoint in ENDPOINTS if endpoint.path == path)
