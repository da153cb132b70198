"""Reading batches: one JSON object with all messages, or a line for each."""

import asyncio
from typing import Any, Final

import msgspec
from starlette.types import Receive

from paceline.api.bodies import STANDS_TWICE, Headers, chunks, parse, parse_object, read, refuse_others
from paceline.api.problems import RefusedError, invalid
from paceline.api.repeats import repeated_part
from paceline.model.errors import Problem

MOST_MESSAGES: Final = 10_000
_BREATHER: Final = 250
"""After so many messages others get their turn: a big batch must not hold up what is due."""
_MEMBERS: Final = ("messages", "defaults")
_split: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Batch(msgspec.Struct):
    """What was sent: for each message its body, or the problems that keep it from being one."""

    bodies: list[Any]
    defaults: dict[str, Any]


async def read_json(receive: Receive, headers: Headers, most: int) -> Batch:
    """``{"messages": [...], "defaults": {...}}``."""
    raw = await read(receive, headers, most)
    members = _members(raw)
    if "messages" not in members:
        raise invalid("/messages", "is missing; it must be a list of messages")
    defaults = parse(members["defaults"]) if "defaults" in members else {}
    if not isinstance(defaults, dict):
        raise invalid("/defaults", "must be an object of fields that each message gets")
    try:
        items = _items(members["messages"])
    except msgspec.ValidationError:
        raise invalid("/messages", "must be a list of messages") from None
    if len(items) > MOST_MESSAGES:
        raise _too_many()
    bodies = []
    for index, item in enumerate(items):
        bodies.append(_body(item))
        if index % _BREATHER == _BREATHER - 1:
            await asyncio.sleep(0)
    return Batch(bodies, defaults)


def _members(raw: bytes) -> dict[str, msgspec.Raw]:
    try:
        members = _split(raw)
    except (ValueError, RecursionError):
        # Not an object of members: the ordinary reader finds the words for it.
        parse_object(raw)
        raise RefusedError(400, "not a JSON object") from None
    refuse_others(members, _MEMBERS)
    twice = repeated_part(raw, members)
    if twice is not None:
        raise invalid(twice, STANDS_TWICE)
    return members


async def read_lines(receive: Receive, headers: Headers, most: int, longest: int) -> Batch:
    """A message on each line, parsed as they arrive; empty lines do not count."""
    bodies: list[Any] = []
    lines = _Lines(longest)
    async for part in chunks(receive, headers, most):
        for line in lines.feed(part):
            _add(bodies, line)
            if len(bodies) % _BREATHER == 0:
                await asyncio.sleep(0)
    for line in lines.rest():
        _add(bodies, line)
    if len(bodies) > MOST_MESSAGES:
        raise _too_many()
    return Batch(bodies, {})


class _Lines:
    """Cuts a stream into lines; of one that is too long no more than the bound is ever kept."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._open = bytearray()
        self._skipping = False

    def feed(self, part: bytes) -> list[bytes | None]:
        """The lines that this part completes; None for one that was too long."""
        *whole, rest = part.split(b"\n")
        done: list[bytes | None] = []
        for piece in whole:
            self._grow(piece)
            done.extend(self.rest())
        self._grow(rest)
        return done

    def rest(self) -> list[bytes | None]:
        """What is left as a line of its own, unless it is empty."""
        line, skipped = bytes(self._open), self._skipping
        self._open, self._skipping = bytearray(), False
        if skipped:
            return [None]
        return [line] if line.strip() else []

    def _grow(self, piece: bytes) -> None:
        if self._skipping or len(self._open) + len(piece) > self._longest:
            self._open, self._skipping = bytearray(), True
        else:
            self._open += piece


def _add(bodies: list[Any], line: bytes | None) -> None:
    # One more than the most is kept to know it; the rest is read, so that the client hears the answer.
    if len(bodies) <= MOST_MESSAGES:
        bodies.append([Problem("", "the line is too long")] if line is None else _body(line))


def _body(raw: bytes | msgspec.Raw) -> Any:
    try:
        return parse_object(raw)
    except RefusedError as error:
        return list(error.errors) or [Problem("", error.detail)]


def _too_many() -> RefusedError:
    return invalid("/messages", f"at most {MOST_MESSAGES:,} in one batch; send the others in another")
