"""The last look before a call leaves: whether this process may still send.

A call takes a while from its beginning to its first byte: a name is looked up, a connection made. In that time the
process may be stopped, another node may follow it, and the byte would come on top of what that one sends. So a channel
asks once more, right before it writes.
"""

from collections.abc import Callable
from contextvars import ContextVar

permit: ContextVar[Callable[[], bool]] = ContextVar("permit")
"""What is asked in the call under way; where nothing is set, every call may leave."""


class NotOursError(Exception):
    """This process may not send any more, and has written nothing of the call."""


def may_leave() -> None:
    """Ask, right before the first byte of a call.

    Raises:
        NotOursError: nothing may be written.
    """
    asked = permit.get(None)
    if asked is not None and not asked():
        raise NotOursError
