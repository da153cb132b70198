"""Taking messages in: the two calls that carry the load, answered before routing begins."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
from starlette.types import Receive, Scope, Send

from paceline.api.answers import JSON, Answer, encode, json_answer
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
from paceline.api.problems import ClientGoneError, RefusedError, answer_to, invalid
from paceline.api.stopping import Stopping
from paceline.config import Settings
from paceline.engine.intake import Prepared
from paceline.engine.keys import Caller
from paceline.engine.service import Service
from paceline.model.errors import InvalidError
from paceline.model.messages import Added

LONGEST_WAIT: Final = 60
NDJSON: Final = b"application/x-ndjson"
_BATCH_BODIES: Final = 4
"""A batch may be this many times as large as a single message."""
_WAIT: Final = frozenset({"wait"})
ACCEPTED: Final = (JSON, (b"x-content-type-options", b"nosniff"))
"""The server spends more on a header than we on a check: no page is made of this answer, so these suffice."""

EXTENSION: Final = "paceline.again"
"""The extension of ASGI by which a request's scope has a `Learn`, called `learn`, if the next one like it may take the fast lane."""

Reply: TypeAlias = bytes | Answer | None
"""The body of a 202 with the headers `ACCEPTED`, or another answer; None: the ordinary path shall answer."""
Then: TypeAlias = Callable[[Reply], None]
Again: TypeAlias = Callable[[bytes, Then], bool]
"""Takes the body of a request whose head came before; whether it did. If so, the answer follows."""
Learn: TypeAlias = Callable[[Again], None]


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
            eta, why = self._messages.outlook(receipt)
            answer = encode(Accepted(receipt.id, receipt.state, eta, why, receipt.duplicate))
            if "extensions" in scope:
                self._teach(scope["extensions"], caller)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered with a problem
            await answer_to(error)(scope, receive, send)
            return
        await send({
            "type": "http.response.start",
            "status": 202,
            "headers": [*ACCEPTED, (b"content-length", b"%d" % len(answer))],
        })  # fmt: skip
        await send({"type": "http.response.body", "body": answer})

    def _teach(self, extensions: dict[str, Any], caller: Caller) -> None:
        """What is said here about the head stays true: of the door's checks only the key's can change."""
        offer = extensions.get(EXTENSION)
        if offer is not None:
            learn: Learn = offer["learn"]
            learn(partial(self._again, caller, self._door.keys.changes))

    def _again(self, caller: Caller, changes: int, raw: bytes, then: Then) -> bool:
        """Take one more message from the same caller; what is wrong is left to the ordinary path to explain."""
        if self._door.keys.changes != changes:
            return False
        try:
            self._messages.take(caller, parse_object(raw), partial(self._taken, then))
        except (RefusedError, InvalidError):
            return False
        return True

    def _taken(self, then: Then, prepared: Prepared, added: Added | BaseException) -> None:
        try:
            if isinstance(added, BaseException):
                raise added
            if added.duplicate:
                then(None)
                return
            receipt = self._messages.receipt(prepared)
            eta, why = self._messages.outlook(receipt)
            reply: Reply = encode(Accepted(receipt.id, receipt.state, eta, why, receipt.duplicate))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered with a problem
            reply = answer_to(error)
        then(reply)

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
