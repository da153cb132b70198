"""Paceline: a durable outbound message queue that keeps every limit exactly."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline.client import Paceline, send

__version__ = "0.1.0"
__all__ = ["Paceline", "__version__", "send"]


def __getattr__(name: str) -> Any:
    """The client, imported when it is first asked for: an inner module alone stays light."""
    if name in {"Paceline", "send"}:
        from paceline import client

        return getattr(client, name)
    raise AttributeError(f"module 'paceline' has no attribute {name!r}")
