"""A wall clock that somebody sets, in the server's process alone, and guards against that, each taken out."""

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from paceline.clock import SystemClock
from paceline.engine import service


def set_offset(path: Path, ms: int) -> None:
    """Set the wall clock of every process that reads it `wall_from` this file: `ms` ahead of the machine's."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        os.pwrite(file.fileno(), struct.pack("=q", ms), 0)


def wall_from(path: str) -> None:
    """The wall clock is ahead of the machine's by as many milliseconds as stand in the file VALUE."""
    with Path(path).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    real_ns = time.time_ns

    def time_ns() -> int:
        offset: int = struct.unpack("=q", shared[:8])[0]
        return real_ns() + offset * 1_000_000

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def forget_steps() -> None:
    """Nobody looks at the wall clock after the start: what is scheduled follows the old one."""
    SystemClock.ahead = lambda _self: 0  # type: ignore[method-assign, assignment] # that is what a break is


def keep_retries() -> None:
    """At a start after a step of the wall clock, back-offs are left on the scale of the run before."""

    async def patched(*_given: Any) -> None:
        pass

    service.shift_retries = patched  # type: ignore[attr-defined, assignment] # that is what a break is


BREAKS = {patch.__name__.replace("_", "-"): patch for patch in (wall_from, forget_steps, keep_retries)}
