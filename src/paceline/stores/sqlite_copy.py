"""A consistent copy of a database that may be in use, finished, checked and then named.

The copy is taken page by page from one snapshot, in steps: commits go on meanwhile and are not in it. Before it
gets its name it is a whole file of its own (no log beside it), marked as a copy, checked and flushed.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import apsw
import msgspec

from paceline.model.errors import ConflictError, SchemaError, UnavailableError
from paceline.stores.base import CopyFacts, Document
from paceline.stores.sqlite_migrate import check_ours, newest_version, version_of
from paceline.stores.sqlite_schema import Session, open_reader, translate

PAGES = 256
"""Pages of a step: a mebibyte, a millisecond or so."""
_STEPS_BETWEEN_FLUSHES = 16
"""Flushed as it grows, so that the last flush is short: a long one would hold up the commits of everybody."""
_NICE = 10

Mark = Callable[[Sequence[Document], int], Sequence[Document]]
"""Given the configuration rows of kind 'installation' and the time: those to write so that a copy knows itself."""


class CopyStoppedError(UnavailableError):
    """The copy was given up because the store closes."""


def copy_database(
    source: Path, target: Path, mark: Mark, now: int, stop: threading.Event | None = None
) -> CopyFacts:
    """Copy `source`, in use or not, to the new file `target`, which only its owner can read.

    Raises:
        ConflictError: `target` exists; it is left as it is.
        UnavailableError: it cannot be read, written or checked; nothing is left behind.
    """
    if target.exists():
        raise ConflictError(f"{target} exists already; name another file")
    part = fresh_part(target)
    try:
        _copy_pages(source, part, stop or threading.Event())
        facts = finish(part, mark, now)
        name(part, target)
    except apsw.Error as error:
        raise translate(error) from error
    finally:
        drop(part)
    return facts


def fresh_part(target: Path) -> Path:
    """An empty file beside `target`, for its owner alone, to be filled and then named.

    Raises:
        UnavailableError: the folder cannot be written to.
    """
    part = target.with_name(target.name + ".part")
    try:
        drop(part)  # what a crash left of an earlier one
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise UnavailableError(f"{part} cannot be written: {error.strerror}") from None
    return part


def finish(part: Path, mark: Mark, now: int) -> CopyFacts:
    """Make a filled file whole: no log beside it, checked, marked as a copy, flushed.

    Raises:
        SchemaError: not a Paceline database, or one of a newer version.
        UnavailableError: it is damaged.
    """
    try:
        connection = apsw.Connection(str(part))
        try:
            check_ours(connection, part)
            connection.pragma("synchronous", "full")
            connection.pragma("journal_mode", "delete")
            _check_whole(connection, part)
            session = Session(connection)
            known = msgspec.json.decode(session.value("documents", "installation"), type=list[Document])
            session.value("write_documents", msgspec.json.encode(mark(known, now)).decode())
            facts = _facts(session, part)
        finally:
            connection.close()
    except apsw.NotADBError:
        raise SchemaError(f"{part.name.removesuffix('.part')} is not a SQLite database") from None
    except apsw.Error as error:
        raise translate(error) from error
    flush(part)
    return facts


def name(part: Path, target: Path) -> None:
    """Give a finished file its name, durably."""
    part.replace(target)
    flush(target.parent)


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name != "posix":
        return  # Windows has no handle of a folder to flush
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def drop(part: Path) -> None:
    """Remove an unfinished file and what SQLite left beside it."""
    for end in ("", "-journal", "-wal", "-shm"):
        part.with_name(part.name + end).unlink(missing_ok=True)


def facts_of(path: Path) -> CopyFacts:
    """Look at a database, in use or not, without changing it.

    Raises:
        SchemaError: there is none, or it is not one of ours.
        UnavailableError: it is damaged or cannot be read.
    """
    if not path.is_file():
        raise SchemaError(f"there is no database {path}")
    try:
        session = open_reader(path)
        try:
            check_ours(session.connection, path)
            _check_whole(session.connection, path)
            return _facts(session, path)
        finally:
            session.connection.close()
    except apsw.NotADBError:
        raise SchemaError(f"{path} is not a SQLite database") from None
    except apsw.Error as error:
        raise translate(error) from error


def _copy_pages(source: Path, part: Path, stop: threading.Event) -> None:
    """All pages of one snapshot. The log of the source cannot be cut off before the snapshot is let go."""
    if not source.is_file():
        raise SchemaError(f"there is no database {source}")
    reader = open_reader(source).connection
    out = apsw.Connection(str(part))
    try:
        reader.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()  # reading takes the snapshot
        # No journal and no flush by SQLite: a copy that was not finished is thrown away.
        out.pragma("journal_mode", "off")
        out.pragma("synchronous", "off")
        with out.backup("main", reader, "main") as copying:
            steps = 0
            while not copying.done:
                if stop.is_set():
                    raise CopyStoppedError("the copy was given up: the store closes")
                copying.step(PAGES)
                steps += 1
                if steps % _STEPS_BETWEEN_FLUSHES == 0:
                    flush(part)
    finally:
        out.close()
        reader.close()


def _check_whole(connection: apsw.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA integrity_check(1)").get
    if found != "ok":
        raise UnavailableError(f"{path.name.removesuffix('.part')} is damaged: {found}")


def _facts(session: Session, path: Path) -> CopyFacts:
    counted = msgspec.json.decode(session.value("contents"))
    version = version_of(session.connection)
    return CopyFacts(version=version, newest=newest_version(), bytes=path.stat().st_size, **counted)


def stand_back() -> None:
    """Let everybody else go first: for a thread that copies beside a server that sends."""
    if sys.platform == "linux":  # elsewhere this is a matter of whole processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
