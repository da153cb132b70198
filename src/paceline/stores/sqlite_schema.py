"""Opens SQLite files: one owner at a time, the right file, the current schema, the right settings."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import apsw

from paceline.model.errors import ConflictError, OccupiedError, SchemaError, UnavailableError
from paceline.stores.sqlite_migrate import check_ours, migrate, newest_version, version_of
from paceline.stores.statements import Statement, load_statements

OLDEST_SQLITE = 3_051_003  # jsonb_each came with 3.51.0; 3.51.3 mends a bug that could corrupt a WAL database
_CACHE_KIB = 40 * 1024
_READER_CACHE_KIB = 4 * 1024


class Ownership:
    """An exclusive lock on ``<file>.lock``, which holds the owner's process id.

    The system drops the lock when the process dies, however it dies; the file stays, because removing a
    lock file lets two processes lock two files of the same name.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, or say who holds it.

        Raises:
            OccupiedError: another open store, here or in another process, has it.
        """
        lock = path.with_name(path.name + ".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = lock.open("a+", encoding="ascii")
        except OSError as error:
            raise UnavailableError(
                f"cannot open {lock}: {error.strerror}; check the folder and its rights"
            ) from None
        try:
            _lock(self._file.fileno())
        except OSError:
            self._file.seek(0)
            owner = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise OccupiedError(
                f"{path} is in use by process {owner}; stop that process, or give this one another file"
            ) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let the next owner in."""
        self._file.close()


def owner_of(path: Path) -> str | None:
    """The process id of whoever has the store open, None for nobody. The lock file is not written to."""
    try:
        with path.with_name(path.name + ".lock").open("r+", encoding="ascii") as file:
            owner = file.read(20).strip() or "unknown"
            try:
                _lock(file.fileno())
            except OSError:
                return owner
    except OSError:
        return None
    return None


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # A byte far behind the text, so that others can still read the process id.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Session:
    """One connection with the named statements."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Use `connection`, which only one thread at a time may touch."""
        self.connection = connection
        self._statements: dict[str, Statement] = load_statements("sqlite")

    def value(self, name: str, *values: Any) -> Any:
        """The one value that a named statement answers."""
        return self.connection.execute(self._statements[name].sql, values).get

    def rows(self, name: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows that a named statement answers, one by one."""
        return iter(self.connection.execute(self._statements[name].sql, values))

    def sql(self, name: str) -> str:
        """The text of a named statement."""
        return self._statements[name].sql

    def prepare_writing(self) -> None:
        """Make the view, the triggers and the scratch tables that the writer works with."""
        for name, statement in self._statements.items():
            if name.startswith("make_"):
                self.connection.execute(statement.sql)


def open_writer(path: Path, before_migration: Callable[[int], object] = lambda _to: None) -> Session:
    """The one connection that writes: the file made or migrated, settings made, scratch tables there.

    `before_migration` is called with the version to come, before a database that is there already is changed.

    Raises:
        SchemaError: not a Paceline store, or one of a newer version.
        UnavailableError: the file cannot be opened or written.
    """
    if OLDEST_SQLITE > apsw.SQLITE_VERSION_NUMBER:
        raise SchemaError(f"SQLite {apsw.sqlite_lib_version()} is too old; install a newer apsw")
    try:
        connection = apsw.Connection(str(path))
        try:
            check_ours(connection, path)
            _set_up_writer(connection)
            version, newest = version_of(connection), newest_version()
            if 0 < version < newest:
                before_migration(newest)
            migrate(connection, newest)
            session = Session(connection)
            session.prepare_writing()
        except BaseException:
            connection.close()
            raise
    except apsw.NotADBError:
        raise SchemaError(f"{path} is not a SQLite database; name another file") from None
    except apsw.Error as error:
        raise translate(error) from error
    return session


def open_reader(path: Path) -> Session:
    """A connection that can only read."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(5000)
    connection.pragma("query_only", True)
    connection.pragma("cache_size", -_READER_CACHE_KIB)
    connection.pragma("temp_store", "memory")
    # Checkpoints are not a reader's, also not the one that the last connection does when it closes.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return Session(connection)


def translate(error: Exception) -> Exception:
    """What a database error means to a caller; an error of any other kind stays what it is."""
    if isinstance(error, apsw.FullError):
        return UnavailableError(
            "the disk is full: nothing was stored; free some space and it goes on by itself"
        )
    if isinstance(error, apsw.ConstraintError):
        return ConflictError(f"this is already stored or breaks a rule of the schema ({error})")
    if isinstance(error, apsw.BusyError):
        return UnavailableError("another program holds the database file; close it and try again")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return UnavailableError(f"the database file is damaged ({error}); stop, and restore it from a copy")
    if isinstance(error, (apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NoMemError)):
        return UnavailableError(
            f"the database file cannot be used now ({error}); check the disk and its rights"
        )
    return error


def _set_up_writer(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(5000)
    if connection.pragma("journal_mode", "wal") != "wal":
        raise UnavailableError("the folder does not allow a write-ahead log; use a local disk")
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", True)
    connection.pragma("checkpoint_fullfsync", True)
    connection.pragma("foreign_keys", False)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("temp_store", "memory")
    # The writer thread chooses the moments itself, between commits that somebody waits for.
    connection.pragma("wal_autocheckpoint", 0)
