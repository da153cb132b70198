"""What a traced server asked of the system, in one order: its files, and what it said to the network.

`strace` stops a thread before and after each call, so that a line's place in the trace is the call's place in
time. A call that another thread's line cuts in two has a beginning and an end; it took effect in between.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,creat,pwrite64,pwritev,write,writev,sendto,sendmsg,ftruncate,fallocate,fdatasync,fsync,"
    "unlink,unlinkat,rename,renameat,renameat2,link,linkat,exit_group"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_CUT = " <unfinished ...>"
_FD = re.compile(r"(\d+)<((?:[^<>]|\\x..)*)>")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_RESULT = re.compile(r".*\) += (-?\d+)")


@dataclass(slots=True)
class Call:
    """One system call that succeeded, or a flush that did not. `begin` and `end` are places in the trace."""

    name: str
    begin: int
    end: int
    path: str = ""
    to: str = ""
    data: bytes = b""
    offset: int = -1
    size: int = 0
    made: bool = False


def tracing(path: Path, *more: str) -> tuple[str, ...]:
    """The command to run a server under; `more` options of strace."""
    strace = shutil.which("strace") or "strace"
    return (strace, "-D", "-f", "-q", "-y", "-xx", "-s", "4000000", "-e", f"trace={CALLS}", "-e", "signal=none",
            *more, "-o", str(path))  # fmt: skip


def read(path: Path, folder: Path) -> Iterator[Call]:
    """The calls on files below `folder` and on sockets, by their end."""
    begun: dict[str, tuple[int, str]] = {}
    with path.open("r", encoding="ascii", errors="replace") as lines:
        for place, line in enumerate(lines):
            match = _LINE.match(line.rstrip("\n"))
            if match is None:
                continue
            thread, resumed, name, rest = match.groups()
            if rest.endswith(_CUT):
                begun[thread] = (place, rest.removesuffix(_CUT))
                continue
            begin = place
            if resumed:
                if thread not in begun:
                    continue
                begin, first = begun.pop(thread)
                name, rest = resumed, first + rest
            result = _RESULT.match(rest)
            if result is None or (int(result[1]) < 0 and name not in {"fdatasync", "fsync"}):
                continue
            if (call := _call(name, rest, int(result[1]))) is not None and _concerns(call, folder):
                call.begin, call.end = begin, place
                yield call
    for begin, rest in begun.values():
        # The last words of a process that was killed: it may have taken effect.
        if (call := _call("write", rest, 0)) is not None and call.path.startswith("socket:"):
            call.begin = call.end = begin
            yield call


def _concerns(call: Call, folder: Path) -> bool:
    below = str(folder)
    return call.path.startswith((below, "socket:", "TCP")) or call.to.startswith(below)


def _call(name: str, rest: str, result: int) -> Call | None:
    if name in {"openat", "creat"}:
        # The path of the file it opened is behind the result; what was named may be relative.
        opened = _FD.search(rest, rest.rfind(" = "))
        if opened is None:
            return None
        return Call("open", 0, 0, _text(opened[2]), made="O_CREAT" in rest or name == "creat")
    if kind := next((each for each in ("unlink", "rename", "link") if name.startswith(each)), ""):
        names = [_text(m[1]) for m in _BYTES.finditer(rest)]
        return Call(kind, 0, 0, names[0], names[1] if len(names) > 1 else "")
    handle = _FD.match(rest)
    if handle is None:
        return None
    call = Call(name, 0, 0, _text(handle[2]))
    if name in {"fdatasync", "fsync"}:
        call.name = "sync" if result == 0 else "failed sync"
    elif name == "ftruncate":
        call.size = int(rest[handle.end() :].strip(", ").split(")")[0])
    elif name == "fallocate":
        call.size = sum(int(n) for n in re.findall(r", (\d+)", rest)[-2:])
    else:
        parts = _BYTES.findall(rest)
        assert not any(more for _, more in parts), "strace cut a text short"
        call.name, call.data = "write", b"".join(_bytes(each) for each, _ in parts)
        if call.path.startswith("/"):
            call.data = call.data[:result]
        if name in {"pwrite64", "pwritev"}:
            call.offset = int(rest[: rest.rfind(")")].rpartition(", ")[2])
    return call


def _bytes(hexed: str) -> bytes:
    return bytes.fromhex(hexed.replace("\\x", ""))


def _text(shown: str) -> str:
    return _bytes(shown).decode() if shown.startswith("\\x") else shown
