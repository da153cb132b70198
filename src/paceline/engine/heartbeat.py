"""Notices that something blocks the event loop, and says what: a handler that sleeps, a channel that computes.

While it is blocked no message is sent and no request answered, whoever's they are. Nothing can be done about that
from outside but to name the code that does it.
"""

import asyncio
import sys
import threading
from types import FrameType

import structlog

from paceline.clock import Clock
from paceline.engine.attempts import Attempts
from paceline.model.ids import to_text
from paceline.model.messages import HandedOver

EVERY_S = 1.0
"""How often the loop is asked for a sign of life while calls are under way."""
PATIENCE_S = 1.0
"""How long it may take to give one."""

log = structlog.get_logger("paceline.heartbeat")


class Heartbeat:
    """A thread beside the event loop. Make it in the loop that it shall watch."""

    def __init__(
        self, attempts: Attempts, clock: Clock, every: float = EVERY_S, patience: float = PATIENCE_S
    ) -> None:
        """Start the thread."""
        self._attempts, self._clock = attempts, clock
        self._every, self._patience = every, patience
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="paceline-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and do not wait for it: it may be waiting for the loop."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            if not len(self._attempts):
                continue  # nothing of a channel runs
            answered = threading.Event()
            asked = self._clock.now()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                return  # the loop has closed
            # The second wait: after the whole process stood still, the loop gets its turn first.
            if not answered.wait(self._patience) and not answered.wait(self._patience / 4):
                self._tell(asked)
                while not answered.wait(self._every):
                    if self._over.is_set():
                        return
                log.error("the event loop runs again", blocked_ms=self._clock.now() - asked)

    def _tell(self, asked: int) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to see another thread
        if frame is None:
            return
        message = _message_of(frame)
        who = (
            {
                "channel": message.channel,
                "account": message.account,
                "kind": message.kind,
                "message": to_text(message.id),
            }
            if message is not None
            else {}
        )
        log.error(
            "the event loop is blocked: nothing is sent or answered until this code returns",
            at=f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}",
            blocked_ms=self._clock.now() - asked,
            **who,
        )


def _message_of(frame: FrameType | None) -> HandedOver | None:
    """Whose call this is. The stack knows, so that calls need not be written down for the rare case."""
    while frame is not None:
        if frame.f_code is Attempts._call.__code__:  # noqa: SLF001 - the one method that all calls go through
            message = frame.f_locals.get("message")
            return message if isinstance(message, HandedOver) else None
        frame = frame.f_back
    return None
