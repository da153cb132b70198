"""What a client gets back, the same over HTTP and embedded, and how refusals become errors."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from paceline.model.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PacelineError,
    Problem,
    UnavailableError,
)

Handler = Callable[..., Any]
Handlers = Mapping[str, Handler | tuple[Handler, bool]]
"""Functions by the kind they handle, where needed with whether running one twice for a message does no harm."""

ENDED: Final = frozenset({"completed", "failed", "cancelled", "expired"})


class UnreachableError(UnavailableError):
    """Nobody answers at the server's address."""


class BusyError(UnavailableError):
    """The server takes no more requests for the moment; `retry_after` is its advice in seconds."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        """Keep the advice."""
        super().__init__(text)
        self.retry_after = retry_after


class RefusedError(PacelineError):
    """The key is missing or unknown, or its role may not do this."""


class Why(msgspec.Struct, frozen=True):
    """One reason why a message waits.

    Attributes:
        kind: what holds it, for example ``limit``, ``flood`` or ``turn``.
        text: the reason in words.
        until: the moment at which this reason ends, at the earliest (RFC 3339), where it is known.
        ahead: how many messages leave before it, where that is the reason.
    """

    kind: str = ""
    text: str = ""
    until: str | None = None
    ahead: int | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the server tells it. `raw` holds every field, also those without a name here."""

    id: str
    state: str
    channel: str = ""
    queue: str = ""
    to: Any = None
    account: str | None = None
    attempts: Any = None
    progress: Any = None
    eta: str | None = None
    result: Any = None
    error: Any = None
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in ENDED or self.state == "uncertain"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a message that was taken in: it is on disk.

    Attributes:
        duplicate: the idempotency key was known; `id` is the first message's.
        message: the whole message, when it ended while `send` waited for it.
    """

    id: str
    state: str
    eta: str | None = None
    why: Any = None
    duplicate: bool = False
    message: Message | None = None


class Rejected(msgspec.Struct, frozen=True):
    """One item of a batch that was refused."""

    index: int
    errors: tuple[Problem, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """The answer to many messages at once: `ids` by their index among those given.

    Attributes:
        duplicates: the indexes whose idempotency key was known; the id is the first message's.
    """

    batch: str
    ids: Mapping[int, str]
    rejected: tuple[Rejected, ...] = ()
    duplicates: frozenset[int] = frozenset()


class Event(msgspec.Struct, frozen=True):
    """Something that happened, from the event stream."""

    id: str
    type: str
    data: Any


def message_of(view: Mapping[str, Any]) -> Message:
    """The typed form of a message's JSON."""
    known = {name: view[name] for name in Message.__struct_fields__ if name in view and name != "raw"}
    return Message(**known, raw=view)


def receipt_of(view: Mapping[str, Any]) -> Receipt:
    """The typed form of the answer to a message: a receipt, or the whole message once it has ended."""
    if "duplicate" in view and "channel" not in view:
        known = {name: view[name] for name in ("id", "state", "eta", "why", "duplicate") if name in view}
        return Receipt(**known)
    message = message_of(view)
    return Receipt(
        id=message.id, state=message.state, duplicate=bool(view.get("duplicate", False)), message=message
    )


def batch_of(view: Mapping[str, Any]) -> Batch:
    """The typed form of the answer to a batch."""
    return Batch(
        str(view.get("batch", "")),
        {one["index"]: one["id"] for one in view.get("accepted", ())},
        tuple(Rejected(one["index"], problems_of(one.get("errors", ()))) for one in view.get("rejected", ())),
        frozenset(one["index"] for one in view.get("accepted", ()) if one.get("duplicate")),
    )


def problems_of(errors: Any) -> tuple[Problem, ...]:
    """The `errors` of a problem document."""
    if not isinstance(errors, list | tuple):
        return ()
    return tuple(
        Problem(str(one.get("field", "")), str(one.get("problem", "")))
        for one in errors
        if isinstance(one, dict)
    )


def error_of(status: int, body: Any, retry_after: str | None = None) -> PacelineError:
    """The error that an HTTP answer of 400 or more stands for."""
    told: Mapping[str, Any] = body if isinstance(body, dict) else {}
    text = str(told.get("detail") or told.get("title") or f"the server answered {status}")
    problems = problems_of(told.get("errors"))
    match status:
        case 401 | 403:
            return RefusedError(text)
        case 404:
            return NotFoundError(text)
        case 409:
            return ConflictError(text)
        case 400 | 413 | 415 | 422:
            return InvalidError(problems or (Problem("", text),))
        case 429 | 503:
            advice = retry_after or ""
            return BusyError(text, float(advice) if advice.replace(".", "", 1).isdigit() else None)
        case _ if status >= 500:
            return UnavailableError(text)
        case _:
            return PacelineError(text)
