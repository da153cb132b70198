"""What is outside `/api/v1`: health and metrics of every node, the reference, the start page."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from paceline.api.answers import PRIVATE, Answer, encode, json_answer, page_answer
from paceline.api.bodies import Headers
from paceline.api.door import Door
from paceline.api.openapi import document
from paceline.api.problems import RefusedError
from paceline.api.reference import render, start_page
from paceline.engine.service import Service

_HTML: Final = "text/html; charset=utf-8"
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,100}", re.ASCII)
View = Callable[[Headers], Awaitable[Answer]]


class Page:
    """A GET; an ASGI application."""

    def __init__(self, view: View) -> None:
        """`view` gets the headers."""
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD."""
        if scope["method"] not in {"GET", "HEAD"}:
            raise RefusedError(405, "only GET is for this address", headers={"allow": "GET"})
        answer = await self._view(dict(scope["headers"]))
        await answer(scope, receive, send)


def page_routes(service: Service, door: Door) -> list[BaseRoute]:
    """Their addresses."""
    views: dict[str, View] = {"/": _start, "/docs": _docs, "/openapi.json": _openapi}
    return [*(Route(path, Page(view)) for path, view in views.items()), *watch_routes(service, door)]


def watch_routes(service: Service, door: Door) -> list[BaseRoute]:
    """What every node answers, whatever its role: whether it is well, and its figures."""

    async def ready(_: Headers) -> Answer:
        if service.ready:
            return json_answer({"status": "ready"})
        return json_answer({"status": "not ready", **service.state}, 503, [(b"retry-after", b"1")])

    async def metrics(headers: Headers) -> Answer:
        if not door.is_local and door.require(headers, "viewer").tenant is not None:
            raise RefusedError(403, "metrics take a key of the whole installation; this one is of a tenant")
        kind = (b"content-type", CONTENT_TYPE_LATEST.encode())
        return Answer(200, generate_latest(service.watch.metrics()), (kind, *PRIVATE))

    views: dict[str, View] = {"/health/live": _live, "/health/ready": ready, "/metrics": metrics}
    return [Route(path, Page(view)) for path, view in views.items()]


async def _live(_: Headers) -> Answer:
    return json_answer({"status": "live"})


async def _openapi(_: Headers) -> Answer:
    return Answer(200, _document(), ((b"content-type", b"application/json"), *PRIVATE))


async def _docs(_: Headers) -> Answer:
    return page_answer(_reference(), _HTML, _policy())


async def _start(headers: Headers) -> Answer:
    host = headers.get(b"host", b"").decode("latin-1")
    page = start_page(_asset("reference.css"), host if _HOST.fullmatch(host) else "HOST:PORT")
    return page_answer(page.encode(), _HTML, _policy())


@cache
def _document() -> bytes:
    return encode(document())


@cache
def _reference() -> bytes:
    return render(document(), _asset("reference.css"), _asset("reference.js")).encode()


@cache
def _asset(name: str) -> str:
    return resources.files("paceline.api").joinpath("assets", name).read_text("utf-8")


@cache
def _policy() -> str:
    """Nothing but our own style and script, named by their digests; no other site, no frame, no form."""
    style, script = (_digest(_asset(name)) for name in ("reference.css", "reference.js"))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
