"""Code that blocks the event loop holds up every account. This thread notices, and names it."""

import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec
import structlog

from paceline.clock import Clock
from paceline.engine.attempts import Attempts
from paceline.model.ids import to_text

LOOK_S = 1.0
"""How often to look while calls are under way."""
LATE_S = 1.0
"""For how long the loop may not answer."""
MOST_KEPT = 100

_LIBRARY = Path(threading.__file__).parent

log = structlog.get_logger("paceline.loop")


class Blocked(msgspec.Struct):
    """Who blocked, at which place in which file, how often and how long at worst."""

    what: str
    where: str
    times: int
    longest_ms: int


class LoopWatch:
    """Looks whether the loop still turns, from a thread, and only while calls are under way."""

    def __init__(self, clock: Clock, busy: Callable[[], int]) -> None:
        """`busy` tells how many calls are under way."""
        self.blocked: dict[tuple[str, str], Blocked] = {}
        self._clock, self._busy = clock, busy
        self._over = threading.Event()

    def start(self, loop: AbstractEventLoop) -> None:
        """Watch the loop of this thread."""
        thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="paceline-loop-watch", daemon=True
        )
        thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _watch(self, loop: AbstractEventLoop, thread: int) -> None:
        while not self._over.wait(LOOK_S):
            if not self._busy():
                continue
            turned = threading.Event()
            asked = self._clock.now()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # the loop is closed
            if turned.wait(LATE_S):
                continue
            what, where, message = _named(sys._current_frames().get(thread))  # noqa: SLF001 - the only way to see another thread
            log.error(
                "the event loop is blocked: nothing is sent or answered until this returns",
                by=what, at=where, message=message,
            )  # fmt: skip
            while not turned.wait(LOOK_S) and not self._over.is_set():
                continue
            self._note(what, where, self._clock.now() - asked)

    def _note(self, what: str, where: str, ms: int) -> None:
        log.warning("the event loop turns again", by=what, at=where, blocked_ms=ms)
        known = self.blocked.get((what, where))
        if known is not None:
            known.times += 1
            known.longest_ms = max(known.longest_ms, ms)
        elif len(self.blocked) < MOST_KEPT:
            self.blocked[what, where] = Blocked(what, where, 1, ms)


def _named(frame: FrameType | None) -> tuple[str, str, str | None]:
    """The call that the frame belongs to, where it is, and of which message."""
    if frame is None:
        return "this process", "unknown", None
    where = _place(frame)
    inner: FrameType | None = frame
    while inner is not None:
        if inner.f_code is Attempts._call.__code__:  # noqa: SLF001 - where every call of a channel begins
            message = inner.f_locals["message"]
            kind = f" kind {message.kind}" if message.kind else ""
            return f"channel {message.channel}{kind}", where, to_text(message.id)
        inner = inner.f_back
    return "this process", where, None


def _place(frame: FrameType) -> str:
    """The innermost line that is not of Python's own library: what it calls there is not what has to be changed."""
    own: FrameType | None = frame
    while own is not None and Path(own.f_code.co_filename).parent == _LIBRARY:
        own = own.f_back
    shown = own or frame
    return f"{Path(shown.f_code.co_filename).name}:{shown.f_lineno} {shown.f_code.co_name}"
