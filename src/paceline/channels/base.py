"""What a channel is: a name, a settings schema, `check`, `send`. It never decides about retries."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

import msgspec

from paceline.model.errors import Problem
from paceline.model.outcomes import Outcome

Kind = Literal["text", "integer", "number", "boolean", "url", "choice"]


class Setting(msgspec.Struct, frozen=True):
    """One setting of an account on a channel. A secret is encrypted at rest and never shown again."""

    name: str
    kind: Kind = "text"
    required: bool = False
    secret: bool = False
    default: Any = None
    help: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


class SendingAccount(msgspec.Struct, frozen=True):
    """The account that sends, with its settings decrypted and its defaults filled in."""

    tenant: str
    name: str
    settings: Mapping[str, Any]


class Outgoing(msgspec.Struct, gc=False):
    """One message at the moment of its hand-over.

    Attributes:
        id: the public id: stable over retries, so that it can serve a receiver as an idempotency key.
        to: the recipients; exactly one on every channel but e-mail.
        content: the sender's own fields: subject, text, html, cc, bcc, from, attachments, headers, payload...
        number: which hand-over this is, from 1.
        progress: report how far the work is: percent 0..100 and a label of the step.
    """

    id: str
    tenant: str
    queue: str
    kind: str | None
    to: tuple[str, ...]
    content: Mapping[str, Any]
    metadata: Mapping[str, Any]
    number: int
    trace_id: str
    created_at: int
    progress: Callable[[float, str], None]


class Channel(ABC):
    """A way to send. One object serves all accounts of the channel and keeps its connections.

    Attributes:
        repeat_is_safe: sending the same message again cannot double it at the receiver; decides what
            becomes of a message whose outcome is unknown.
        needs_account: False where a message may leave without a configured account.
        many_recipients: True where `to` may be a list.
        default_queue: the queue of a message that names none.
        bodies: which fields of the message this channel understands as its body.
        body_required: at least one of these has to be there (empty: none is required).
    """

    name: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]] = ()
    repeat_is_safe: ClassVar[bool] = False
    needs_account: ClassVar[bool] = True
    many_recipients: ClassVar[bool] = False
    default_queue: ClassVar[str] = "notification"
    bodies: ClassVar[frozenset[str]] = frozenset({"text"})
    body_required: ClassVar[frozenset[str]] = frozenset({"text"})

    def check(self, to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with a message before it is taken in; empty when it can be sent.

        Called for each message: it must be quick and must not do I/O.
        """
        return []

    def check_settings(self, settings: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with an account's settings beyond the schema. Fields are relative: ``"/base_url"``."""
        return []

    def may_repeat(self, kind: str | None) -> bool:
        """Whether a message of this kind may be sent again when nobody knows what became of it."""
        return self.repeat_is_safe

    @abstractmethod
    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """Hand the message over once and tell what the provider's answer means.

        `deadline` is the number of seconds this call may take; the caller cancels it a little later.
        Once any byte that can make the provider act has been written, a time-out or a cut is `Unknown`;
        before that it is `Temporary`. A cancellation is passed on.
        """

    async def probe(self, account: SendingAccount, deadline: float) -> Outcome | None:
        """Find out, without sending, whether the account works; None where the channel cannot."""
        return None

    async def reach(self, account: SendingAccount, deadline: float) -> Outcome | None:
        """Find out, without sending or signing in, whether the provider answers at all; None where there is none."""
        return None

    async def forget(self, account: SendingAccount) -> None:
        """Drop what is kept for an account whose settings changed."""

    async def close(self) -> None:
        """Close every connection."""


permit: ContextVar[Callable[[], bool]] = ContextVar("permit")
"""What the call under way asks before it leaves; where nothing is set, every call may."""


class NotOursError(Exception):
    """This process may not send any more, and has written nothing of the call."""


def may_leave() -> None:
    """Ask whether this process may still send, right before the first byte of a call.

    A call takes a while from its beginning to its first byte: a name is looked up, a connection made. In that time the
    process may be stopped, another node may follow it, and the byte would come on top of what that one sends.

    Raises:
        NotOursError: nothing may be written.
    """
    asked = permit.get(None)
    if asked is not None and not asked():
        raise NotOursError
