"""The disk as a power cut leaves it: what was flushed is there, what was not may be, sector by sector.

A write is certain once a flush of its file, begun after the write had ended, has ended itself. A name is certain
once its folder was flushed. Everything else is one of three things at a cut: gone, there up to some point, or
there in any sectors of 512 bytes, which is what disks promise to write whole.

After a flush that failed nothing helps what it should have flushed: the system takes those pages for clean, and a
later flush that succeeds says nothing about them. They are kept or lost then and there, for good.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.syscalls import Call

SECTOR = 512
MODES = ("gone", "prefix", "sectors")
_IGNORED = ("-shm",)  # shared memory: SQLite makes it anew from the log


@dataclass
class Inode:
    """A file's content: the certain part, and the calls since."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)
    length: int = 0


@dataclass
class _Name:
    path: str
    inode: Inode | None
    """None: the name is gone."""


class Disk:
    """The files below one folder."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names: dict[str, Inode] = {}
        self.certain: dict[str, Inode] = {}
        self.changes: dict[str, list[_Name]] = {}

    def begin(self, call: Call) -> None:
        """A call begins: from now on its effect may be on the disk."""
        if call.path.endswith(_IGNORED):
            return
        if call.name == "open":
            if call.made and call.path not in self.names:
                self._name(call.path, Inode())
        elif call.name in {"write", "ftruncate", "fallocate"}:
            inode = self.names.get(call.path)
            if inode is None:
                return  # somebody else's file
            if call.name == "write":
                if call.offset < 0:
                    call.offset = inode.length
                inode.length = max(inode.length, call.offset + len(call.data))
            else:
                inode.length = call.size if call.name == "ftruncate" else max(call.size, inode.length)
            inode.pending.append(call)
        elif call.name == "unlink":
            if call.path in self.names:
                self._name(call.path, None)
        elif call.name in {"rename", "link"} and call.path in self.names:
            self._name(call.to, self.names[call.path])
            if call.name == "rename":
                self._name(call.path, None)

    def end(self, call: Call) -> None:
        """A call has ended: a flush has made certain what ended before it began."""
        if call.name not in {"sync", "failed sync"}:
            return
        if call.path in self.names:
            inode = self.names[call.path]
            done = [each for each in inode.pending if each.end < call.begin]
            inode.pending = [each for each in inode.pending if each.end >= call.begin]
            for each in done if call.name == "sync" else _kept(done, "sectors", self.chance):
                _apply(inode.content, each)
        if call.name == "failed sync":
            return
        for change in self.changes.pop(call.path, ()):
            self._make_certain(self.certain, change)

    def cut(self, into: Path, root: Path, mode: str) -> None:
        """Write what a power cut at this moment may leave behind; `mode` is one of `MODES`."""
        names, chance = dict(self.certain), self.chance
        for changes in self.changes.values():
            # File systems keep the order of names: those up to some point are there.
            count = 0 if mode == "gone" else chance.randint(0, len(changes))
            for change in changes[:count]:
                self._make_certain(names, change)
        for path, inode in names.items():
            content = bytearray(inode.content)
            for part in _kept(inode.pending, mode, chance):
                _apply(content, part)
            target = into / Path(path).relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def _name(self, path: str, inode: Inode | None) -> None:
        if inode is None:
            self.names.pop(path, None)
        else:
            self.names[path] = inode
        self.changes.setdefault(str(Path(path).parent), []).append(_Name(path, inode))

    @staticmethod
    def _make_certain(names: dict[str, Inode], change: _Name) -> None:
        if change.inode is None:
            names.pop(change.path, None)
        else:
            names[change.path] = change.inode


def _kept(pending: list[Call], mode: str, chance: random.Random) -> Iterator[Call]:
    if mode == "gone":
        return
    if mode == "prefix":
        yield from pending[: chance.randint(0, len(pending))]
        return
    for call in pending:
        if call.name != "write":
            if chance.random() < 0.5:
                yield call
            continue
        at = 0
        while at < len(call.data):
            # Up to the next border of a sector on the disk.
            size = SECTOR - (call.offset + at) % SECTOR
            if chance.random() < 0.5:
                yield Call("write", 0, 0, data=call.data[at : at + size], offset=call.offset + at)
            at += size


def _apply(content: bytearray, call: Call) -> None:
    if call.name == "write":
        missing = call.offset - len(content)
        if missing > 0:
            content.extend(bytes(missing))
        content[call.offset : call.offset + len(call.data)] = call.data
    elif call.name == "ftruncate" and call.size < len(content):
        del content[call.size :]
    else:
        content.extend(bytes(call.size - len(content)))


def play(calls: Iterable[Call], chance: random.Random) -> Iterator[tuple[int, Disk, list[Call]]]:
    """The disk after each step of the trace, with the sockets' calls that began so far.

    The same objects each time: look, and do not keep.
    """
    ordered = list(calls)
    steps = sorted(
        [(call.begin, 0, n) for n, call in enumerate(ordered)]
        + [(call.end, 1, n) for n, call in enumerate(ordered)]
    )
    disk, said = Disk(chance), list[Call]()
    for place, ends, number in steps:
        call = ordered[number]
        if not call.path.startswith("/") and call.name == "write":
            if not ends:
                said.append(call)
        elif ends:
            disk.end(call)
        else:
            disk.begin(call)
        yield place, disk, said
