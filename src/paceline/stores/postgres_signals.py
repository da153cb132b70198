"""Word between the nodes of a schema: NOTIFY makes it quick, and a look now and then makes it sure.

What is told is only that there is something to look at, so that a word that is lost costs time and nothing else. Words
of a moment are told together, in a transaction of their own: one that writes nothing waits for no disk, and commits of
several nodes that notify would wait for one another.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import COMMON, Session, connect, translate

T = TypeVar("T")

CALL_S: Final = 5.0
"""A connection on which an answer takes longer counts as lost."""
_ECHO_S: Final = 5.0
"""So often a node sends word to itself: a connection that does not hear it does not listen any more."""
NEWS: Final = "n"
"""Settings, nodes or partitions have changed: everybody looks."""

log = structlog.get_logger("paceline.store")


class Signals:
    """One connection that listens, tells and looks, opened again when it is lost. On one event loop."""

    def __init__(self, address: Address, node: str, heard: Callable[[str], None]) -> None:
        """`heard` is called with each word: `NEWS`, or partitions as a number in hexadecimal, a bit for each."""
        self._address, self._node, self._heard = address, node, heard
        self._channel = f"paceline_{address.schema}"[:63]
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        self._parts = 0
        self._news = False
        self._telling: asyncio.Task[None] | None = None
        self._echo_at = 0.0
        self._echoed = True
        self._closed = False
        self.lost = 0

    def tell(self, partitions: int = 0, *, news: bool = False) -> None:
        """Tell all nodes soon; what is told at the same time goes together."""
        self._parts |= partitions
        self._news |= news
        if (self._parts or self._news) and self._telling is None and not self._closed:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def ask(self, act: Callable[[Session], Awaitable[T]]) -> T:
        """Run `act` on the connection, alone.

        Raises:
            UnavailableError: the server cannot be reached, or does not answer.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(CALL_S):
                    return await act(await self._listening())
            except Exception as error:
                if isinstance(error, TimeoutError) and self._session is not None:
                    self._session.connection.terminate()
                raise translate(error, self._address.name) from error

    async def close(self) -> None:
        """Tell what is left to tell, and let the connection go."""
        self._closed = True
        if self._telling is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._telling, 1.0)
        async with self._turn:
            if self._session is not None:
                await self._session.close()
                self._session = None

    async def _open(self) -> Session:
        if self._session is None or self._session.closed:
            self.lost += self._session is not None
            self._session = await connect(self._address, f"paceline {self._node} word", COMMON, CALL_S)
            await self._session.connection.add_listener(self._channel, self._receive)
            self._echoed = True
            self._heard(NEWS)  # nobody knows what was told meanwhile
        return self._session

    async def _listening(self) -> Session:
        """The connection, of which it is looked now and then whether it hears what is told."""
        session = await self._open()
        now = asyncio.get_running_loop().time()
        if now < self._echo_at:
            return session
        if not self._echoed:
            log.warning("words of other nodes do not arrive any more; listening anew")
            session.connection.terminate()
            session = await self._open()
        self._echo_at, self._echoed = now + _ECHO_S, False
        await _say(session, self._channel, f"={self._node}")
        return session

    def _receive(self, _connection: Any, _process: int, _channel: str, word: str) -> None:
        if word == f"={self._node}":
            self._echoed = True
        elif not word.startswith("="):
            self._heard(word)

    async def _tell(self) -> None:
        try:
            while self._parts or self._news:
                words = [NEWS] * self._news + [f"{self._parts:x}"] * bool(self._parts)
                self._parts, self._news = 0, False
                for word in words:
                    await self.ask(partial(_say, channel=self._channel, word=word))
        except Exception as error:  # noqa: BLE001 - who was not told looks by itself
            log.debug("could not tell the other nodes", reason=str(error))
        finally:
            self._telling = None


async def _say(session: Session, channel: str, word: str) -> None:
    await session.value("tell", channel, word)
