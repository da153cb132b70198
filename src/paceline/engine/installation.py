"""Which installation this is, where it lives, and whether it is on hold: one document of the store.

Two servers on two copies of one database would both send what waits in it. So the database knows where it lives
and how often it was started, a copy knows that it is one, and whichever finds itself elsewhere sends nothing until
a person says so.
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from paceline.model.checks import print_time
from paceline.model.errors import ConflictError
from paceline.stores.base import Document

KIND = "installation"
NAME = "state"
MACHINE_ID = Path("/etc/machine-id")

Cause = Literal["restored", "copied", "moved", "rolled-back", "asked"]


class Hold(msgspec.Struct, frozen=True):
    """Nothing is sent since `since`; `copied_at` is the moment of the copy, where this is one."""

    cause: Cause
    text: str
    since: int
    copied_at: int | None = None


class Place(msgspec.Struct, frozen=True):
    """Where a database lies. `machine` is empty where the machine has no id of its own (in many containers)."""

    machine: str
    path: str
    file: int


class Moved(msgspec.Struct, frozen=True):
    """Everything is elsewhere since `at`."""

    to: str
    at: int


class Unfinished(msgspec.Struct, frozen=True):
    """A copy out of `source` that began at `since` and did not come to its end yet."""

    source: str
    since: int


class Installation(msgspec.Struct, frozen=True):
    """`id` stays for ever, `epoch` counts releases, `run` counts starts. Moved or unfinished, it is not used."""

    id: str
    epoch: int = 1
    run: int = 0
    place: Place | None = None
    hold: Hold | None = None
    moved: Moved | None = None
    unfinished: Unfinished | None = None


def check_usable(known: Installation) -> None:
    """Refuse a store that must not be started.

    Raises:
        ConflictError: it was moved elsewhere, or is a copy that is not finished.
    """
    if known.unfinished is not None:
        raise ConflictError(
            f"this is an unfinished copy of {known.unfinished.source}, begun at {print_time(known.unfinished.since)},"
            " and cannot be used; make it again with: paceline store copy FROM TO"
        )
    if known.moved is not None:
        raise ConflictError(
            f"everything in this store was moved to {known.moved.to} at {print_time(known.moved.at)}: start that one"
            " instead, since both would send what waits. To use what was left here after all, take a copy of it with:"
            " paceline store copy FROM TO --keep; it starts on hold"
        )


def read(documents: Sequence[Document]) -> Installation:
    """What the store knows of itself; a new installation when it knows nothing."""
    for document in documents:
        if document.name == NAME:
            return msgspec.json.decode(document.body, type=Installation)
    return Installation(secrets.token_hex(8))


def to_document(installation: Installation, now: int) -> Document:
    """The row to store."""
    return Document(KIND, "", NAME, msgspec.json.encode(installation).decode(), now)


def mark_copy(documents: Sequence[Document], now: int) -> list[Document]:
    """The rows that make a copy of the database start on hold. A copy of a copy keeps the earlier moment.

    A copy of one that was moved elsewhere can be started, as any copy can.
    """
    installation = read(documents)
    held = installation.hold
    if held is None or held.cause == "asked":
        text = f"this is a copy made at {print_time(now)}: what waits in it may have been sent by the original since"
        held = Hold("restored", text, now, now)
    return [to_document(msgspec.structs.replace(installation, hold=held, moved=None), now)]


def started(known: Installation, here: Place | None, seen: int, now: int) -> Installation:
    """The installation as it is from this start on; `seen` is the number of the last start in this place.

    It goes on hold when the database came here as a copy. A folder that was moved on its own disk, or that keeps
    its path, goes on.
    """
    hold = known.hold or _doubt(known, here, seen, now)
    run = max(known.run, seen) + 1
    return msgspec.structs.replace(known, run=run, place=here or known.place, hold=hold)


def _doubt(known: Installation, here: Place | None, seen: int, now: int) -> Hold | None:
    was = known.place
    if was is not None and here is not None:
        if was.machine and here.machine and was.machine != here.machine:
            return Hold("moved", "the database was last used on another machine", now)
        elsewhere = was.path != here.path or not here.machine
        if was.file != here.file and elsewhere:
            return Hold("copied", f"the database was last used as another file, at {was.path}", now)
    if seen > known.run:
        text = f"an older database was put back: it was started {known.run} times, the one before it {seen} times"
        return Hold("rolled-back", text, now)
    return None


def place_of(file: Path, installation: str) -> Place | None:
    """Where a database lies; None when that cannot be told. The machine's id is kept as a digest only."""
    try:
        inode = file.stat().st_ino
        path = str(file.resolve())
    except OSError:
        return None
    return Place(_machine(installation), path, inode)


def _machine(installation: str) -> str:
    try:
        text = MACHINE_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return hashlib.sha256(f"{installation} {text}".encode()).hexdigest()[:16] if text else ""


class RunFile:
    """The number of the last start, beside the database: a database that is behind it was put back."""

    def __init__(self, database: Path) -> None:
        """`database` is the file it lies beside."""
        self._path = database.with_name(database.name + ".run")

    def read(self, installation: str) -> int:
        """The number; 0 when there is none, or when it is another installation's."""
        try:
            id_, _, run = self._path.read_text("ascii").partition(" ")
            return int(run) if id_ == installation else 0
        except (OSError, ValueError):
            return 0

    def write(self, installation: str, run: int) -> None:
        """Keep the number. Where that is not possible a database that was put back goes unnoticed, no more."""
        part = self._path.with_name(self._path.name + ".part")
        with suppress(OSError):
            with part.open("w", encoding="ascii") as file:
                file.write(f"{installation} {run}\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
