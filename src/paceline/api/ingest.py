"""Taking messages in: the two calls that carry the load, answered before routing begins."""

from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from paceline.api.answers import JSON, encode, json_answer
from paceline.api.batches import Batch, read_json, read_lines
from paceline.api.bodies import (
    Headers,
    media_type,
    one,
    parse_object,
    parse_query,
    read,
    require_json,
)
from paceline.api.door import Door
from paceline.api.problems import ClientGoneError, answer_to, invalid
from paceline.api.stopping import Stopping
from paceline.config import Settings
from paceline.engine.service import Service

LONGEST_WAIT: Final = 60
NDJSON: Final = b"application/x-ndjson"
_BATCH_BODIES: Final = 4
"""A batch may be this many times as large as a single message."""
_WAIT: Final = frozenset({"wait"})
_HEADERS: Final = (JSON, (b"x-content-type-options", b"nosniff"))
"""The server spends more on a header than we on a check: no page is made of this answer, so these suffice."""


class Accepted(msgspec.Struct):
    """The answer to a message that was taken in."""

    id: str
    state: str
    eta: str | None
    why: Any
    duplicate: bool


class Ingest:
    """`POST /messages` and `POST /messages/batch` as plain ASGI."""

    def __init__(self, service: Service, settings: Settings, door: Door, stopping: Stopping) -> None:
        """Bind what each request needs."""
        self._messages = service.messages
        self._door = door
        self._stopping = stopping
        self._most = settings.max_body

    async def single(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one message; 202 once it is on disk, or 200 with its end when the client waits for that."""
        try:
            headers: Headers = dict(scope["headers"])
            door = self._door
            door.check_host(headers)
            door.check_origin(headers)
            caller = door.require(headers, "sender")
            seconds = _wait(scope["query_string"]) if scope["query_string"] else 0.0
            if headers.get(b"content-type") != b"application/json":
                require_json(headers)
            body = parse_object(await read(receive, headers, self._most))
            receipt = await self._messages.submit(caller, body)
            if seconds:
                whole = await self._stopping.unless(self._messages.wait(receipt.id, seconds))
                if whole is not None:
                    await json_answer(whole)(scope, receive, send)
                    return
            eta, why = self._messages.outlook(receipt.id)
            answer = encode(Accepted(receipt.id, receipt.state, eta, why, receipt.duplicate))
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered with a problem
            await answer_to(error)(scope, receive, send)
            return
        await send({
            "type": "http.response.start",
            "status": 202,
            "headers": [*_HEADERS, (b"content-length", b"%d" % len(answer))],
        })  # fmt: skip
        await send({"type": "http.response.body", "body": answer})

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take up to 10,000 messages; each is accepted or rejected on its own."""
        try:
            headers: Headers = dict(scope["headers"])
            self._door.check_host(headers)
            self._door.check_origin(headers)
            caller = self._door.require(headers, "sender")
            parse_query(scope["query_string"], ())
            require_json(headers, also=[NDJSON])
            batch = await self._read_batch(receive, headers)
            answer = json_answer(
                await self._messages.submit_batch(caller, batch.bodies, batch.defaults), status=202
            )
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered with a problem
            answer = answer_to(error)
        await answer(scope, receive, send)

    async def _read_batch(self, receive: Receive, headers: Headers) -> Batch:
        most = self._most * _BATCH_BODIES
        if media_type(headers) == NDJSON:
            return await read_lines(receive, headers, most, self._most)
        return await read_json(receive, headers, most)


def _wait(raw: bytes) -> float:
    text = one(parse_query(raw, _WAIT), "wait")
    if text is None:
        return 0.0
    try:
        seconds = float(text) if text.isascii() and len(text) < 20 else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise invalid("/wait", f"must be a number of seconds from 0 to {LONGEST_WAIT}")
    return seconds
