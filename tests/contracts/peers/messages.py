"""Messages and accounts for the channels' suites."""

from typing import Any

from paceline.channels.base import Outgoing, SendingAccount

NOW = 1_760_000_000_000
"""The wall time of the suites, in milliseconds since 1970: Thu, 09 Oct 2025 08:53:20 UTC."""

SECRET = "c4n4ry-5ecret"
"""Looked for in everything that comes out of a channel."""


def message(
    content: dict[str, Any],
    *to: str,
    ident: str = "0199c0ffee01",
    kind: str | None = None,
    number: int = 1,
    metadata: dict[str, Any] | None = None,
    progress: Any = None,
) -> Outgoing:
    return Outgoing(
        id=ident,
        tenant="acme",
        queue="q",
        kind=kind,
        to=to,
        content=content,
        metadata=metadata or {},
        number=number,
        trace_id="t",
        created_at=NOW,
        progress=progress or (lambda percent, step: None),
    )


def account(**settings: Any) -> SendingAccount:
    return SendingAccount("acme", "main", settings)
