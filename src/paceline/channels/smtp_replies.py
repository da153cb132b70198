"""What an SMTP reply means, by its place in the dialogue, its enhanced code and its code."""

import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

from paceline.channels.texts import told
from paceline.model.outcomes import AccountStopped, Outcome, Permanent, RateLimited, Temporary, Unknown


class Phase(IntEnum):
    """How far a dialogue has come; in this order."""

    GREETING = 1
    HELLO = 2
    TLS = 3
    LOGIN = 4
    MAIL = 5
    RECIPIENT = 6
    DATA = 7
    AFTER_DOT = 8


GREYLIST_WAIT_MS: Final = 60_000
"""How long to stay away from a greylisting server that gives no figure: the shortest delay in common use."""

_ENHANCED = re.compile(r"\s*([245])\.([0-9]{1,3})\.([0-9]{1,3})\b", re.ASCII)
_GREYLISTED = re.compile(r"gr[ae]y[\s-]*list", re.IGNORECASE)


def _limited(code: str, text: str) -> Outcome:
    return RateLimited(None, "account", code, text)


def _greylisted(code: str, text: str) -> Outcome:
    return Temporary(code, text, GREYLIST_WAIT_MS, up=True)


# The first row that fits decides: code, enhanced code (a part ending in a dot fits what begins so; empty fits
# all), outcome. Sources: RFC 5321 section 4.2, RFC 3463 and the registry of RFC 5248, RFC 4954 section 6.
_TABLE: Final[tuple[tuple[str, str, Callable[[str, str], Outcome]], ...]] = (
    ("421", "", _limited),  # service not available, closing: RFC 5321, 3.8
    ("450", "4.7.", _limited),  # refused by policy for now: what servers answer to a sender that is too fast
    ("451", "4.7.", _limited),
    ("454", "4.7.0", _limited),  # temporary authentication failure: RFC 4954
    ("432", "4.7.12", AccountStopped),  # a password transition is needed: RFC 4954
    ("550", "5.4.5", _limited),  # congestion (RFC 3463); in use for an exhausted daily quota
    ("525", "5.7.13", AccountStopped),  # user account disabled: RFC 5248 registry
    ("530", "", AccountStopped),  # authentication required: RFC 4954
    ("534", "", AccountStopped),  # mechanism too weak: RFC 4954
    ("535", "", AccountStopped),  # credentials invalid: RFC 4954
    ("538", "", AccountStopped),  # encryption required: RFC 4954
    ("4", "", Temporary),
    ("5", "", Permanent),
)


def enhanced(code: int, text: str) -> str:
    """The enhanced code a reply begins with (RFC 2034), or nothing where there is none that fits the code."""
    match = _ENHANCED.match(text)
    if match is None or match[1] != str(code)[:1]:
        return ""
    return f"{match[1]}.{match[2]}.{match[3]}"


def read_reply(phase: Phase, code: int, text: str, secrets: Iterable[str] = ()) -> Outcome:
    """What a reply other than the hoped-for one means."""
    detail = enhanced(code, text)
    name = f"smtp-{code}-{detail}" if detail else f"smtp-{code}"
    line = told(f"{code} {text}", secrets)
    if not 400 <= code <= 599:
        if phase is Phase.AFTER_DOT:
            return Unknown(f"the mail was handed over and the reply makes no sense: {line}")
        return Temporary("smtp-senseless", f"the server's reply makes no sense: {line}")
    if code < 500 and _GREYLISTED.search(text) and phase >= Phase.MAIL and code != 421:
        return _greylisted(name, line)
    # Before a mail is named a refusal for good is about who we are, not about any message.
    if code >= 500 and phase < Phase.MAIL:
        return AccountStopped(name, line)
    if code == 454 and phase is Phase.LOGIN:
        return _limited(name, line)
    for wanted, part, outcome in _TABLE:
        if str(code).startswith(wanted) and (
            detail.startswith(part) if part[-1:] in ("", ".") else detail == part
        ):
            made = outcome(name, line)
            # Before a mail is named, 'later' is about the whole service; after that, about this mail.
            return Temporary(name, line, up=phase >= Phase.MAIL) if isinstance(made, Temporary) else made
    raise AssertionError("the table ends in a row for every code")


_RANK: Final = (AccountStopped, RateLimited, Temporary, Permanent)


def of_all(outcomes: Iterable[Outcome]) -> Outcome:
    """One outcome where every recipient was refused: the one that leaves most hope speaks for all."""
    return min(
        outcomes, key=lambda outcome: _RANK.index(type(outcome)) if type(outcome) in _RANK else len(_RANK)
    )
