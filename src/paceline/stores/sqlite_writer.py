"""The one thread that writes: everything asked for while a commit runs shares the next one."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import msgspec

from paceline.model.errors import UnavailableError
from paceline.stores import sqlite_writes as writes
from paceline.stores.calls import Call, Kind, by_kind, resolve
from paceline.stores.sqlite_checkpoint import PAGES, RESTART_PAGES, Checkpointer
from paceline.stores.sqlite_gap import Gap
from paceline.stores.sqlite_schema import Ownership, Session, translate

_MOST_ROWS = 5_000
"""A commit takes calls until it has this many rows, so that the last one in line does not wait for all. Of large
messages each counts as several (see `SqliteStore.add`), so it is bounded in bytes as well."""
_WORTH_A_COMMIT = 16
"""Rows for which an idle writer starts at once instead of waiting for more of the same step of the loop."""

_IDLE_CHECKPOINT_PAGES = 1_000
_AGAIN_S = 0.1
"""Seconds until a log that a read kept from beginning anew is tried again."""


_ANSWERS = "SELECT text FROM answer ORDER BY place"
_START = writes.Work("start")
_FINISH = writes.Work("finish")
_WORKS_A_STATEMENT = 12
_ROW = "(" + ", ".join("?" * len(_START.__struct_fields__)) + ")"
_VALUES = [", ".join([_ROW] * many) for many in range(_WORKS_A_STATEMENT + 1)]
_INSERTS = [f"INSERT INTO work VALUES {rows}" for rows in _VALUES]  # noqa: S608 - question marks


_PLANNERS: dict[Kind, writes.Planner] = {
    Kind.SETTLE: writes.settle,
    Kind.ADD: writes.add,
    Kind.PROMOTE: writes.promote,
    Kind.EXPIRE: writes.expire,
    Kind.REVISE: writes.revise,
    Kind.HAND_OVER: writes.hand_over,
    Kind.OTHER: writes.other,
}


class Figures:
    """What `health` tells of the writer: a commit is everything from the first row to the end of the flush."""

    __slots__ = ("checkpoint_ms", "commit_ms", "commits", "failures", "flush_failed", "wal_pages")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.commits = 0
        self.failures = 0
        self.commit_ms = 0.0
        self.checkpoint_ms = 0.0
        self.flush_failed = False
        self.wal_pages = 0


class Writer:
    """Takes calls from one event loop, commits them in its own thread, answers them in the loop."""

    def __init__(
        self, session: Session, path: Path, loop: asyncio.AbstractEventLoop, ownership: Ownership, gap: Gap
    ) -> None:
        """Start the thread; it sleeps until the first call, and gives the ownership up when it ends.

        Where reads keep the log from beginning anew it asks for a `gap` in them.
        """
        self._gap = gap
        self._restart_at = 0.0
        self.figures = Figures()
        self._session = session
        self._ownership = ownership
        self._path = path
        self._file = _identity(path)
        self._checkpointer = Checkpointer(path)
        self._loop = loop
        self._gathered: list[Call] = []
        self._pending: list[Call] = []
        self._wake = threading.Condition()
        self._idle = False
        self._stopping = False
        self._stopped = loop.create_future()
        self._thread = threading.Thread(target=self._work, name="paceline-store", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many calls wait for their commit."""
        return len(self._gathered) + len(self._pending)

    def submit(self, kind: Kind, work: Any, rows: int) -> asyncio.Future[Any]:
        """Ask for a write. Calls of the same step of the loop go to the thread together."""
        future = self._loop.create_future()
        if self._stopping:
            future.set_exception(UnavailableError("the store is closed"))
            return future
        if not self._gathered:
            self._loop.call_soon(self._pass_on)
        self._gathered.append(Call(kind, work, rows, future))
        if self._idle and rows >= _WORTH_A_COMMIT:
            self._pass_on()  # the thread has nothing to do: it need not wait until this step is over
        return future

    async def stop(self) -> None:
        """Finish what was asked for, then end the thread and close the connection."""
        self._stopping = True
        self._pass_on()
        await self._stopped

    def _pass_on(self) -> None:
        if not self._gathered and not self._stopping:
            return
        gathered, self._gathered = self._gathered, []
        with self._wake:
            self._pending += gathered
            self._wake.notify()

    def _work(self) -> None:
        while calls := self._take():
            self._serve(calls)
            self._answer(calls)
            self._checkpoint()
        self._close()
        self._ownership.release()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _close(self) -> None:
        connection, beside = self._session.connection, self._checkpointer
        beside.stop()
        with suppress(apsw.Error):
            if beside.failed:  # else closing would move the rest of the log, and throw the log away
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()
        beside.close()

    def _take(self) -> list[Call]:
        """The next calls in the order they came, as many as make a good commit; none when it is over."""
        with self._wake:
            self._idle = True
            while not self._pending and not self._stopping:
                self._wake.wait()
            self._idle = False
            rows = 0
            for count, call in enumerate(self._pending):
                rows += call.rows
                if count and rows > _MOST_ROWS:
                    taken, self._pending = self._pending[:count], self._pending[count:]
                    return taken
            taken, self._pending = self._pending, []
            return taken

    def _serve(self, calls: list[Call]) -> None:
        """Run the calls in one transaction; if that fails, each in its own, so that only the culprit fails."""
        error = self._transact(calls)
        if error is None:
            return
        if len(calls) == 1:
            calls[0].answer = error
        elif not isinstance(error, UnavailableError):
            for call in calls:
                self._serve([call])
        else:
            # Full or broken: one more try without what takes up room, so that endings still get written.
            small = [call for call in calls if call.kind is not Kind.ADD]
            if not small or len(small) == len(calls) or self._transact(small) is not None:
                small = []
            for call in calls:
                if call not in small:
                    call.answer = error

    def _transact(self, calls: Sequence[Call]) -> Exception | None:
        begun = self._loop.time()
        try:
            self._check_file()
            plans = [(chosen, _PLANNERS[kind](self._session, [call.work for call in chosen]))
                     for kind, chosen in by_kind(calls)]  # fmt: skip
            works = [_START, *(work for _, plan in plans for work in plan.works), _FINISH]
            self._commit(works, [each for _, plan in plans for each in plan.large])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must hear it and the thread live
            self.figures.failures += 1
            self._roll_back()
            return translate(error)
        self.figures.commits += 1
        self.figures.commit_ms = (self._loop.time() - begun) * 1000
        self._deal(plans)
        return None

    def _commit(self, works: Sequence[writes.Work], large: Sequence[tuple[str, int]]) -> None:
        """Put the works in: one statement, which is its own transaction, or a few when there are many."""
        connection = self._session.connection
        if len(works) <= _WORKS_A_STATEMENT and not large:
            connection.execute(*_insert(works))
            return
        connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(works), _WORKS_A_STATEMENT):
            connection.execute(*_insert(works[start : start + _WORKS_A_STATEMENT]))
        for content, message in large:
            connection.execute(self._session.sql("put_content"), (content, message))
        connection.execute("COMMIT")

    def _deal(self, plans: Sequence[tuple[list[Call], writes.Plan]]) -> None:
        """Give the calls their answers. What is committed stays so, whatever happens here."""
        try:
            asked = any(plan.asks for _, plan in plans)
            texts = iter([text for (text,) in self._session.connection.execute(_ANSWERS)] if asked else ())
            for calls, plan in plans:
                for call, answer in zip(calls, plan.deal(texts), strict=True):
                    call.answer = answer
        except Exception as error:  # noqa: BLE001 - see _transact
            for calls, _ in plans:
                for call in calls:
                    call.answer = error

    def _roll_back(self) -> None:
        connection = self._session.connection
        with suppress(apsw.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _answer(self, calls: list[Call]) -> None:
        # The loop may be gone when the program ends without closing the store.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(resolve, calls)

    def _check_file(self) -> None:
        """A deleted file can still be written to, but nobody would ever read it again."""
        if self._file is not None and _identity(self._path) != self._file:
            raise UnavailableError(f"{self._path} was moved or deleted while in use; put it back and restart")

    def _checkpoint(self) -> None:
        """Have the log moved into the database, and let it begin anew when it has grown long."""
        beside = self._checkpointer
        changed = self._session.connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        self.figures.wal_pages += changed
        self.figures.flush_failed = beside.failed
        if beside.failed:
            return
        if beside.log >= RESTART_PAGES and beside.idle.is_set() and self._loop.time() >= self._restart_at:
            # Met by a read, it is tried again soon, while no other one begins; where that is no use, after a while.
            if self._restart_log() or not self._gap.ask(self._loop.time()):
                beside.log = 0
            self._restart_at = self._loop.time() + _AGAIN_S
        elif self.figures.wal_pages >= (PAGES if self._pending else _IDLE_CHECKPOINT_PAGES) and beside.ask():
            self.figures.wal_pages = 0

    def _restart_log(self) -> bool:
        """Move what little is left; from the next commit on the log is written from its start again.

        Answers False where a read was met.

        Only a writer with nothing else to do cuts the file: pages that the file system has to find room for again
        take longer to flush than pages that are written over.
        """
        connection = self._session.connection
        begun = self._loop.time()
        mode = apsw.SQLITE_CHECKPOINT_RESTART if self._pending else apsw.SQLITE_CHECKPOINT_TRUNCATE
        try:
            # A reader that holds an old snapshot stops a checkpoint; it is not worth waiting for.
            connection.set_busy_timeout(0)
            connection.wal_checkpoint(mode=mode)
            self.figures.wal_pages = 0
            self._gap.over()
        except apsw.BusyError:
            self._checkpointer.flush()  # what was moved before the reader was met counts as moved
            return False
        except apsw.Error:
            # No harm done: the log keeps what it has, and the next checkpoint leads here again.
            return True
        finally:
            connection.set_busy_timeout(5000)
            self.figures.checkpoint_ms = (self._loop.time() - begun) * 1000
        return True


def _insert(works: Sequence[writes.Work]) -> tuple[str, tuple[Any, ...]]:
    values = tuple(value for work in works for value in msgspec.structs.astuple(work))
    return _INSERTS[len(works)], values


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
