"""What a check of the installation says, and what it is given to look at."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from paceline.engine.core import Core

Status = Literal["pass", "warn", "fail"]
Finding = dict[str, Any]

SHOWN = 5
"""Things named in one line; the rest is counted."""


class Said(msgspec.Struct, frozen=True):
    """One check's answer: a line of what was found, and a line of advice unless it passed."""

    status: Status
    detail: str
    advice: str = ""


class Patient(msgspec.Struct, frozen=True):
    """The installation. `running`: this is the process that sends; else its files are looked at from outside.

    `facts` are settings by name: ``data`` is the data folder. `relays` read the outboxes.
    """

    core: Core
    facts: Mapping[str, Any]
    running: bool
    relays: Sequence[Any] = ()

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(str(self.facts["data"]))


Check = Callable[[Patient], Awaitable[Said]]


def passed(detail: str) -> Said:
    """Nothing is wrong."""
    return Said("pass", detail)


def warned(detail: str, advice: str) -> Said:
    """It works, but somebody should know."""
    return Said("warn", detail, advice)


def failed(detail: str, advice: str) -> Said:
    """Something does not work, or will not after the next start."""
    return Said("fail", detail, advice)


def few(things: Iterable[str]) -> str:
    """The first of them by name, and how many more there are."""
    named = list(things)
    more = f" and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
    return ", ".join(named[:SHOWN]) + more
