"""Moving the write-ahead log into the database, beside the commits instead of between them.

A checkpoint of a few thousand scattered pages takes tens of milliseconds of disk time. In a thread and on a
connection of its own it delays no commit: the passive mode copies what is committed and waits for nobody. (The
bug that could damage a database with two connections at the log was fixed in SQLite 3.51.3, the least that
`open_writer` takes.)

SQLite flushes the database only when a checkpoint reaches the end of the log, which one beside commits hardly
ever does, and counts the pages as moved all the same. If that late flush fails, the system takes all of them
for written, and the log that could bring them back is soon written over. So each pass is flushed here, and until
that has succeeded a reader keeps the log from beginning anew. After a flush that failed the log is kept for good:
the next start reads it from its beginning.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

import apsw

PAGES = 4_000
"""Pages in the log that are worth a checkpoint while commits go on."""
RESTART_PAGES = 12_000
"""A log of so many pages is to begin anew: while commits go on it would never do so by itself."""
REST_PAGES = 500
"""So many pages may be left for the writer to move when it has the log begin anew."""
MOST_PASSES = 4
"""Passes in a row at most: commits may well write faster than pages are moved."""
_SOMETHING = "SELECT 1 FROM sqlite_schema LIMIT 1"


class Checkpointer:
    """One thread that sleeps until it is asked.

    Attributes:
        log: the length of the log at the last checkpoint, in pages.
        idle: set while no checkpoint is under way.
        failed: a flush failed; no checkpoint is done any more, and nobody may do one.
    """

    def __init__(self, path: Path) -> None:
        """Open two connections and start the thread.

        Raises:
            apsw.Error, OSError: the file cannot be opened.
        """
        self.log = 0
        self.failed = False
        self.idle = threading.Event()
        self.idle.set()
        self._mover, self._guard = _connect(path), _connect(path)
        # Closing any descriptor of the file would let go of SQLite's locks on it: this one stays until `close`.
        self._file = os.open(path, os.O_RDWR)
        self._asked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="paceline-checkpoint", daemon=True)
        self._thread.start()

    def ask(self) -> bool:
        """Do one now; False when one is under way already, or none may be done."""
        if self.failed or not self.idle.is_set():
            return False
        self.idle.clear()
        self._asked.set()
        return True

    def stop(self) -> None:
        """End the thread and close its connections."""
        self._stopping = True
        self._asked.set()
        self._thread.join()

    def close(self) -> None:
        """The last step, once every connection is closed."""
        os.close(self._file)

    def flush(self) -> None:
        """Make the database durable as far as it is written; note it if that failed. Any thread may call it."""
        try:
            flush(self._file)
        except OSError:
            self.failed = True

    def _work(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                break
            # What cannot be moved now stays in the log, safe, for the next time.
            with suppress(apsw.Error):
                self.log = self._move()
            self.idle.set()
        self._mover.close()
        self._guard.close()

    def _move(self) -> int:
        """Move the log; a long one again and again, until little is left that came meanwhile. Answers its length."""
        log = self._pass()
        for _ in range(MOST_PASSES - 1):
            if log < RESTART_PAGES or self.failed:
                break
            before, log = log, self._pass()
            if log - before < REST_PAGES:
                break
        return log

    def _pass(self) -> int:
        self._guard.execute("BEGIN")
        try:
            self._guard.execute(_SOMETHING).fetchall()  # from here on the log cannot begin anew
            log, _ = self._mover.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self.flush()
        finally:
            if not self.failed:
                self._guard.execute("ROLLBACK")
        return log


def flush(file: int) -> None:
    """Everything written to the file is on the disk, not only in its cache.

    Raises:
        OSError: the disk could not; what was to be flushed may be lost.
    """
    try:
        from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined]  # only macOS has and needs it
    except ImportError:
        (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(file)
    else:
        fcntl(file, F_FULLFSYNC)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    # Every commit in the log has been flushed by its writer, and the database is flushed here.
    connection.pragma("synchronous", "off")
    connection.pragma("wal_autocheckpoint", 0)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection
