"""The system calls of a server, as `strace` writes them down: which flush came before which answer."""

import re
import shutil
from pathlib import Path

_FLUSHED = re.compile(r"(?:fdatasync|fsync)(?:\(\d+\)| resumed>.*\)) += 0")


class Traced:
    """`prefix` is the command to run a server under."""

    def __init__(self, path: Path) -> None:
        self.path = path
        calls = "trace=fsync,fdatasync,write,writev,sendto,sendmsg,exit_group"
        self.prefix = (
            shutil.which("strace") or "strace",
            "-D",
            "-f",
            "-q",
            "-s",
            "300",
            "-e",
            calls,
            "-o",
            str(path),
        )

    def lines(self) -> list[str]:
        return self.path.read_text("utf-8", "replace").splitlines()

    def mark(self) -> int:
        """How many lines there are now."""
        return len(self.lines())

    def whole(self) -> bool:
        """The server has ended, and so has its tracer."""
        return any("+++ exited with" in line for line in self.lines()[-3:])

    def flushes_before(self, words: str, first: int, last: int) -> int:
        """How many flushes had ended when `words` were written; strace may be a few lines behind `last`."""
        count = 0
        for line in self.lines()[first : last + 50]:
            if words in line and not _FLUSHED.search(line):
                return count
            count += _FLUSHED.search(line) is not None
        raise AssertionError(f"nobody wrote {words!r}")
