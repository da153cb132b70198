"""Reading requests: bounded, strict JSON, and parameters that are known."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Message, Receive

from paceline.api.problems import ClientGoneError, RefusedError, invalid
from paceline.api.repeats import repeated
from paceline.model.checks import suggestion
from paceline.model.errors import InvalidError, Problem

Headers = Mapping[bytes, bytes]
Query = dict[str, list[str]]

_DEEPEST: Final = 100
_MOST_PARAMETERS: Final = 2_000
_MOST_TOLD: Final = 20
_IDLE_SECONDS: Final = 30.0
_KEY_NAMES: Final = frozenset({"key", "api_key", "apikey", "token", "access_token", "authorization"})
STANDS_TWICE: Final = "stands twice in its object; give it once"
_decode: Final = msgspec.json.Decoder().decode


async def chunks(receive: Receive, headers: Headers, most: int) -> AsyncIterator[bytes]:
    """The body as it arrives, never more than `most` bytes of it."""
    _check_declared(headers, most)
    size, more = 0, True
    while more:
        part, more = _part(await _next(receive))
        size += len(part)
        if size > most:
            raise _too_large(most, lingers=more)
        if part:
            yield part


async def read(receive: Receive, headers: Headers, most: int) -> bytes:
    """The whole body."""
    _check_declared(headers, most)
    # Nearly every body comes in one piece, which is there already: it is not worth a timer.
    body, more = _part(await receive())
    if more or len(body) > most:
        rest = bytearray(body)
        while more and len(rest) <= most:
            part, more = _part(await _next(receive))
            rest += part
        if len(rest) > most:
            raise _too_large(most, lingers=more)
        body = bytes(rest)
    return body


def _check_declared(headers: Headers, most: int) -> None:
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
        raise _too_large(most)


def _part(message: Message) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message.get("body", b""), message.get("more_body", False)


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            return await receive()
    except TimeoutError:
        raise RefusedError(
            408, f"nothing more arrived for {_IDLE_SECONDS:g} seconds", headers={"connection": "close"}
        ) from None


def _too_large(most: int, *, lingers: bool = True) -> RefusedError:
    return RefusedError(413, f"at most {most:,} bytes are taken here", lingers=lingers)


def media_type(headers: Headers) -> bytes:
    """The type of content without its parameters; empty where none is named."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def require_json(headers: Headers, also: Collection[bytes] = ()) -> bytes:
    """The media type, refused unless it is JSON, one of `also`, or missing."""
    found = media_type(headers)
    if found in {b"", b"application/json"} or found in also or found.endswith(b"+json"):
        return found
    known = b", ".join([b"application/json", *also]).decode()
    raise RefusedError(415, f"send {known}, not {found.decode('latin-1')[:80]}")


def parse(raw: bytes | msgspec.Raw) -> Any:
    """Strict JSON in which no object has a member twice.

    Raises:
        RefusedError: it is not; the sentence says where and why.
    """
    try:
        value = _decode(raw)
    except RecursionError:
        raise RefusedError(400, f"nested deeper than {_DEEPEST} levels") from None
    except UnicodeDecodeError:
        raise RefusedError(400, "not UTF-8") from None
    except msgspec.ValidationError as error:
        raise RefusedError(400, f"a number is out of range: {error}") from None
    except msgspec.DecodeError as error:
        raise RefusedError(400, _reason(raw, error)) from None
    text = bytes(raw)
    _not_too_deep(text, value)
    twice = repeated(text, value)
    if twice is not None:
        raise invalid(twice, STANDS_TWICE)
    return value


def _reason(raw: bytes | msgspec.Raw, error: msgspec.DecodeError) -> str:
    if not bytes(raw).strip():
        return "the body is empty; send a JSON object"
    if bytes(raw).startswith(b"\x1f\x8b"):
        return "the body is compressed; send it as it is, without Content-Encoding"
    return str(error)


def _not_too_deep(raw: bytes, value: Any) -> None:
    """Refuse what would be a burden to every later reader; few bodies have brackets enough to need the walk."""
    if raw.count(b"[") + raw.count(b"{") <= _DEEPEST:
        return
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise RefusedError(400, f"nested deeper than {_DEEPEST} levels")


def _children(value: Any) -> Iterable[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inside if isinstance(child, dict | list)]


def parse_object(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """A JSON object."""
    value = parse(raw)
    if not isinstance(value, dict):
        raise RefusedError(
            422, "the body must be a JSON object", [Problem("", "the body must be a JSON object")]
        )
    return value


def parse_query(raw: bytes, known: Collection[str]) -> Query:
    """The parameters, each with all its values; unknown ones are refused with the name probably meant."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        sentence = f"parameters must be UTF-8 in percent-encoding, and at most {_MOST_PARAMETERS:,}"
        raise RefusedError(422, sentence, [Problem("", sentence)]) from None
    query: Query = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    strange = [name for name in query if name not in known]
    if strange:
        raise InvalidError([Problem(_pointer(name), _unknown(name, known)) for name in strange[:_MOST_TOLD]])
    return query


def refuse_others(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse members that are not known."""
    strange = [name for name in body if name not in known]
    if strange:
        raise InvalidError([Problem(_pointer(name), _no_field(name, known)) for name in strange[:_MOST_TOLD]])


def _no_field(name: str, known: Collection[str]) -> str:
    return "no such field" + (suggestion(name, known) or f"; there are {', '.join(known)}")


def _pointer(name: str) -> str:
    return "/" + name[:100].replace("~", "~0").replace("/", "~1")


def _unknown(name: str, known: Collection[str]) -> str:
    if name.lower() in _KEY_NAMES:
        return "a key never belongs into an address; send it as 'Authorization: Bearer KEY'"
    if not known:
        return "this call takes no parameters"
    return "no such parameter" + (suggestion(name, known) or f"; there are {', '.join(sorted(known))}")


def one(query: Query, name: str) -> str | None:
    """The value of a parameter that may stand once."""
    values = query.get(name)
    if not values:
        return None
    if len(values) > 1:
        raise invalid(f"/{name}", "give it once")
    return values[0]


def whole(query: Query, name: str, least: int, most: int, default: int) -> int:
    """A whole number within bounds."""
    text = one(query, name)
    if text is None:
        return default
    wanted = f"must be a whole number from {least:,} to {most:,}"
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
        raise invalid(f"/{name}", wanted)
    return int(text)


def flag(query: Query, name: str) -> bool:
    """True or false, false when it is not given."""
    text = one(query, name)
    if text not in {None, "true", "false", "1", "0"}:
        raise invalid(f"/{name}", "must be true or false")
    return text in {"true", "1"}
