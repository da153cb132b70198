"""Paceline: a durable outbound message queue that keeps every limit exactly."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline.channels.handler import Fail, Job, Retry
    from paceline.client import Paceline, send

__version__ = "0.1.0"
__all__ = ["Fail", "Job", "Paceline", "Retry", "__version__", "send"]


def __getattr__(name: str) -> Any:
    """The client and what handlers use, imported when first asked for: an inner module alone stays light."""
    if name in {"Paceline", "send"}:
        from paceline import client

        return getattr(client, name)
    if name in {"Fail", "Job", "Retry"}:
        from paceline.channels import handler

        return getattr(handler, name)
    raise AttributeError(f"module 'paceline' has no attribute {name!r}")
