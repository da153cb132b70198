"""Connections that only read: a read never waits for the writer, nor a quick one for a search."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from paceline.model.errors import UnavailableError
from paceline.model.messages import FlowKey
from paceline.stores.base import FlowState
from paceline.stores.calls import TooSlowError
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import Session, connect, translate

T = TypeVar("T")


class Readers:
    """A few reading connections of one class, opened when they are first needed and anew when they are lost."""

    def __init__(self, address: Address, size: int, application: str, settings: dict[str, str], seconds: float,
                 too_slow: str = "") -> None:  # fmt: skip
        """At most `size` reads at a time; one that takes longer than `seconds` is stopped, with the advice `too_slow`."""
        self._address = address
        self._application = application
        self._settings = {**settings, "statement_timeout": str(round(seconds * 1000))}
        self._seconds = seconds
        self._too_slow = too_slow
        self._room = asyncio.Semaphore(size)
        self._free: list[Session] = []
        self._closed = False

    async def read(self, act: Callable[[Session], Awaitable[T]]) -> T:
        """Run `act` on a free connection.

        A read may be repeated: when the connection turns out to be lost, a new one is tried once.

        Raises:
            TooSlowError: it took longer than the limit.
            UnavailableError: the server cannot be reached.
        """
        async with self._room:
            try:
                return await self._once(act, fresh=False)
            except UnavailableError:
                return await self._once(act, fresh=True)

    async def close(self) -> None:
        """Let the connections go. Reads under way end with an error."""
        self._closed = True
        free, self._free = self._free, []
        for session in free:
            await session.close()

    async def _once(self, act: Callable[[Session], Awaitable[T]], *, fresh: bool) -> T:
        if self._closed:
            raise UnavailableError("the store is closed")
        session = None if fresh or not self._free else self._free.pop()
        if session is None or session.closed:
            # The server's own limit comes first; ours is for a server that does not answer at all.
            session = await connect(self._address, self._application, self._settings, self._seconds + 5)
        try:
            return await act(session)
        except asyncpg.QueryCanceledError:
            raise TooSlowError(f"the search took longer than {self._seconds:g} s{self._too_slow}") from None
        except Exception as error:
            if isinstance(error, TimeoutError):
                session.connection.terminate()
            raise translate(error, self._address.name) from error
        finally:
            self._give_back(session)

    def _give_back(self, session: Session) -> None:
        if self._closed:
            session.connection.terminate()
        elif not session.closed:
            self._free.append(session)


async def in_one_moment(session: Session, act: Callable[[Session], Awaitable[T]]) -> T:
    """Run `act` so that all it reads is of one moment."""
    transaction: Any = session.connection.transaction(isolation="repeatable_read", readonly=True)
    async with transaction:
        return await act(session)


def flow_states(rows: Sequence[Any]) -> list[FlowState]:
    """Rows of the registry's flows."""
    return [FlowState(number, FlowKey(*key), pending) for number, *key, pending in rows]
