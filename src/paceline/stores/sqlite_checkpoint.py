"""Moving the write-ahead log into the database, beside the commits instead of between them.

A checkpoint of a few thousand scattered pages takes tens of milliseconds of disk time. In a thread and on a
connection of its own it delays no commit: the passive mode copies what is committed and waits for nobody. (The
bug that could damage a database with two connections at the log was fixed in SQLite 3.51.3, the least that
`open_writer` takes.)
"""

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


class Checkpointer:
    """One thread that sleeps until it is asked. `log` is the length of the log at the last checkpoint, in pages."""

    def __init__(self, path: Path) -> None:
        """Start the thread; the connection is opened in it."""
        self._path = path
        self._asked = threading.Event()
        self._stopping = False
        self.idle = threading.Event()
        self.idle.set()
        self.log = 0
        self._thread = threading.Thread(target=self._work, name="paceline-checkpoint", daemon=True)
        self._thread.start()

    def ask(self) -> bool:
        """Do one now; False when one is under way already."""
        if not self.idle.is_set():
            return False
        self.idle.clear()
        self._asked.set()
        return True

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopping = True
        self._asked.set()
        self._thread.join()

    def _work(self) -> None:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.pragma("synchronous", "full")
        connection.pragma("checkpoint_fullfsync", True)
        connection.pragma("wal_autocheckpoint", 0)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                break
            # What cannot be moved now stays in the log, safe, for the next time.
            with suppress(apsw.Error):
                self.log = _move(connection)
            self.idle.set()
        connection.close()


def _move(connection: apsw.Connection) -> int:
    """Move the log; a long one again and again, until little is left that came meanwhile. Answers its length."""
    log, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    for _ in range(MOST_PASSES - 1):
        before = log
        if log < RESTART_PAGES:
            break
        log, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if log - before < REST_PAGES:
            break
    return log
