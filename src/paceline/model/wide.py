"""Limits wider than a lane where several nodes share them: what is asked of the store, and what it answers."""

import msgspec

Need = tuple[str, str]
"""A place that a hand-over takes: of the wide limit of this name, for this key ('' where all count together)."""


class Wide(msgspec.Struct, array_like=True, frozen=True):
    """A wide limit as the store counts it: `maximum` places, each free `span_ms` after the end of the call that used it.

    `span_ms` 0 bounds the calls under way. The other fields are those of `pacing.scopes.Rule`.
    """

    name: str
    maximum: int
    span_ms: int
    tenant: str = ""
    queue: str = ""
    channel: str = ""
    recipient: str = ""
    group: str = ""


class Told(msgspec.Struct, frozen=True):
    """No place of a limit was free.

    `moments` are those at which places become free that other nodes used last, in order, of which there may be more;
    nobody knows that of the places of their calls under way.
    """

    name: str
    key: str
    moments: list[int]


class Use(msgspec.Struct, frozen=True):
    """How many places of a limit are occupied, and when the next one of these is free, if somebody knows."""

    used: int
    until: int | None
