"""Answers as values that can be sent: a status, headers that are ready, and a body."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

Header = tuple[bytes, bytes]

SECURITY: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Sent with everything."""
_INERT: Final[Header] = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
PRIVATE: Final[tuple[Header, ...]] = (*SECURITY, _INERT, (b"cache-control", b"no-store"))
"""Sent with everything that is data and not a page."""

JSON: Final[Header] = (b"content-type", b"application/json")
PROBLEM: Final[Header] = (b"content-type", b"application/problem+json")

_LINGER_BYTES: Final = 64 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0

encode: Final = msgspec.json.Encoder().encode


class Answer:
    """A whole answer; an ASGI application, so that a handler may return this or a stream alike."""

    __slots__ = ("body", "headers", "lingers", "status")

    def __init__(self, status: int, body: bytes, headers: Sequence[Header], *, lingers: bool = False) -> None:
        """Keep the parts; `lingers` is for an answer given before the request was read to its end."""
        self.status = status
        self.body = body
        self.headers = list(headers)
        if status != 204:
            self.headers.append((b"content-length", b"%d" % len(body)))
        self.lingers = lingers
        if lingers:
            self.headers.append((b"connection", b"close"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        if not self.lingers:
            await send({"type": "http.response.body", "body": self.body})
            return
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await _drain(receive)
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    """Throw away what a client is still sending: closing at once would also throw away our answer to it."""
    drained = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while drained < _LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                drained += len(message.get("body", b""))
    except TimeoutError:
        pass  # a client that neither sends nor leaves is cut off


def json_answer(data: Any, status: int = 200, headers: Sequence[Header] = ()) -> Answer:
    """Data as JSON."""
    return Answer(status, encode(data), (JSON, *PRIVATE, *headers))


def nothing() -> Answer:
    """204: it is done and there is nothing to show."""
    return Answer(204, b"", PRIVATE)


def page_answer(body: bytes, kind: str, policy: str) -> Answer:
    """A page with its own content policy."""
    headers = ((b"content-type", kind.encode()), (b"content-security-policy", policy.encode()))
    return Answer(200, body, (*headers, *SECURITY, (b"cache-control", b"no-cache")))


def header_list(fields: Mapping[str, str]) -> list[Header]:
    """Headers as ASGI wants them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
