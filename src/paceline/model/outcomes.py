"""What a provider's answer can mean: a closed set. A channel returns exactly one of these for each call."""

from typing import Any, Literal

import msgspec

Scope = Literal["account", "recipient", "group"]


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The provider took the message. `reference` is its own id for it; `result` is kept with the message."""

    reference: str = ""
    result: Any = None


class RateLimited(msgspec.Struct, frozen=True, gc=False):
    """The provider refused because of the rate. Costs no attempt.

    Attributes:
        wait_ms: how long it asked us to wait, in milliseconds; None when it gave no figure.
        scope: who has to wait: the whole account, this recipient, or this group.
    """

    wait_ms: int | None
    scope: Scope = "account"
    code: str = ""
    text: str = ""


class Temporary(msgspec.Struct, frozen=True, gc=False):
    """Certainly not sent, and trying again later may help.

    `wait_ms` is the provider's own advice when to try again, if it gave one. `counts` is False where nothing was
    tried because this process lacks what it takes: the message is held, and loses no attempt by it.

    `up` is what it tells of the provider: False where that is down for every message of the account (no connection,
    no answer, an error of the service as a whole), True where it is there, None where nobody can tell.
    """

    code: str
    text: str
    wait_ms: int | None = None
    counts: bool = True
    up: bool | None = None


class Permanent(msgspec.Struct, frozen=True, gc=False):
    """Refused for good: this message, as it is, will never be taken."""

    code: str
    text: str


class AccountStopped(msgspec.Struct, frozen=True, gc=False):
    """The account itself is refused (credentials, ban, balance). The message is not at fault and waits."""

    code: str
    text: str


class Moved(msgspec.Struct, frozen=True, gc=False):
    """Certainly not sent: the recipient has the new address `to`, which is used from now on."""

    to: str
    code: str
    text: str


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """The message may have been taken: the link was cut, or time ran out, after it was handed over.

    `up` as in `Temporary`.
    """

    text: str
    code: str = "unknown"
    up: bool | None = None


Outcome = Accepted | RateLimited | Temporary | Permanent | AccountStopped | Moved | Unknown
