"""Threads that read, each with its own connection: a read never waits for the writer, nor a quick for a slow."""

import asyncio
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from paceline.model.errors import UnavailableError
from paceline.stores.calls import TooSlowError
from paceline.stores.sqlite_gap import MOST_S, Gap
from paceline.stores.sqlite_schema import Session, open_reader, translate

T = TypeVar("T")

_STEPS_BETWEEN_LOOKS = 20_000
_LOOK_S = 0.005
_LOOKS = round(MOST_S / _LOOK_S)


class Readers:
    """A few reading threads of one class: what the lanes need has its own, apart from people's searches."""

    def __init__(
        self, path: Path, size: int, name: str, seconds: float | None, gap: Gap | None = None
    ) -> None:
        """Open `size` connections; a read that takes longer than `seconds` is stopped, and none begins in the `gap`."""
        self._gap = gap
        self._seconds = seconds
        self._free: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._sessions = [open_reader(path) for _ in range(size)]
        for session in self._sessions:
            self._free.put(session)
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def read(self, act: Callable[[Session], T]) -> T:
        """Run `act` on a free connection; all it reads is of one moment.

        Raises:
            TooSlowError: it took longer than the limit.
            UnavailableError: the file cannot be read.
        """
        try:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._pool, self._read, act, loop.time)
        except RuntimeError:
            raise UnavailableError("the store is closed") from None
        return await running

    def close(self) -> None:
        """Wait for the reads under way and close the connections."""
        self._pool.shutdown()
        for session in self._sessions:
            session.connection.close()

    def _read(self, act: Callable[[Session], T], clock: Callable[[], float]) -> T:
        for _ in range(_LOOKS):
            if self._gap is None or not self._gap.left(clock()):
                break
            time.sleep(_LOOK_S)
        session = self._free.get()
        try:
            if self._seconds is not None:
                end = clock() + self._seconds
                session.connection.set_progress_handler(lambda: clock() > end, _STEPS_BETWEEN_LOOKS)
            session.connection.execute("BEGIN")
            return act(session)
        except apsw.InterruptError:
            raise TooSlowError(
                f"the search took longer than {self._seconds:g} s; narrow it by state, batch, campaign, "
                "recipient or time"
            ) from None
        except apsw.Error as error:
            raise translate(error) from error
        finally:
            if session.connection.in_transaction:
                session.connection.execute("ROLLBACK")
            self._free.put(session)
