"""The lease of a node: until when it may send, renewed in a thread of its own, so that a busy event loop does not lose it.

The database counts the lease from the moment at which it hears of a renewal; the node counts the same length from
before it asked, by a clock that goes on while the process is stopped or the machine sleeps. So the node stops before
others may follow it, whatever the clocks of the two show.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

import structlog

from paceline.clock import boot_id, passed_ms
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import COMMON, Session, connect

_MARGIN: Final = 0.05
"""This part of the lease is not used: for clocks that do not run alike, and for the way from the look to the wire."""
_PATIENCE_S: Final = 1.0
"""A renewal that takes longer is given up, with its connection."""
_AGAIN_S: Final = 0.2
_QUICK_MS: Final = 100
"""Only a renewal that came back so soon tells how far the clocks are apart."""

log = structlog.get_logger("paceline.store")


class Lease:
    """Renews until it is stopped, or learns that the node was ended."""

    def __init__(
        self, address: Address, node: str, lease_ms: int, ended: Callable[[], None], begun_ms: float
    ) -> None:
        """The node joined at `begun_ms` of `passed_ms`, or later. `ended` is called once, in the thread of the lease."""
        self.now: Callable[[], float] | None = None
        """The clock in milliseconds that journal times are taken from, once there is one; it is compared."""
        self.renewals = 0
        self._address, self._node, self._lease_ms = address, node, lease_ms
        self._told = ended
        self._until = begun_ms + lease_ms * (1 - _MARGIN)
        self._off = 0
        self._over = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="paceline-lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    @property
    def valid(self) -> bool:
        """Whether a call may begin at this moment."""
        return passed_ms() < self._until

    def stop(self) -> None:
        """Renew no more. What was renewed holds until its end."""
        self._over.set()

    def join(self) -> None:
        """Wait until the thread has ended; not for the event loop."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(2 * _PATIENCE_S)

    def _work(self) -> None:
        asyncio.run(self._renew_often())

    async def _renew_often(self) -> None:
        session: Session | None = None
        pause = 0.0
        while not self._over.is_set() and not self._ended:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    if session is None or session.closed:
                        session = await connect(
                            self._address, f"paceline {self._node} lease", COMMON, _PATIENCE_S
                        )
                    await self._renew(session)
                pause = self._lease_ms / 3000
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do it
                log.warning("the lease could not be renewed", reason=str(error) or type(error).__name__)
                if session is not None:
                    session.connection.terminate()
                session, pause = None, _AGAIN_S
            self._over.wait(pause)  # nothing else runs on this loop
        if session is not None:
            await session.close()
        if self._ended:
            self._told()

    async def _renew(self, session: Session) -> None:
        begun = passed_ms()
        clock = self.now() if self.now is not None else None
        found = await session.value("renew", self._node, self._lease_ms, self._off, boot_id(), round(begun))
        took = passed_ms() - begun
        if found is None:
            self._ended = True
            self._until = 0.0
            return
        self._until = begun + self._lease_ms * (1 - _MARGIN)
        self.renewals += 1
        if clock is not None and took < _QUICK_MS:
            self._off = max(self._off, round(abs(found - clock - took / 2) + took / 2) + 1)
