"""Who owns a schema: one process at a time, by a lock that hangs on its writing connection and a row that outlives it.

The lock tells at once that somebody is there. The row carries the fencing number, which grows with each change of
owner: every commit begins by asking for it, so that a process which lost its connection, and with it the lock, and
comes back late can write nothing any more. The row carries the number of the last commit as well: after a connection
was lost in the middle of a commit, it is what tells whether that commit was made.
"""

import asyncio
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any, Final

import structlog

from paceline.model.errors import OccupiedError, PacelineError, UnavailableError
from paceline.stores.postgres_address import Address
from paceline.stores.postgres_session import Session

TAKE_OVER_S: Final = 10.0
"""How long an owner that is neither known to be dead nor connected may take to come back before another one follows.
One whose server was restarted is back within a second of the server."""
_LOOK_AGAIN_S: Final = 0.25
_TRIES: Final = 4

log = structlog.get_logger("paceline.store")


class LostError(PacelineError):
    """This process is not the owner any more, and will not be again without a restart."""


class Ownership:
    """The right of this process to write to a schema."""

    def __init__(self, address: Address, take_over_s: float = TAKE_OVER_S) -> None:
        """Nothing is owned yet."""
        self.application = f"paceline {secrets.token_hex(8)}"
        self.fencing = 0
        self._address = address
        self._take_over_s = take_over_s

    async def lock(self, session: Session) -> None:
        """Take the lock, before anything is looked at or written.

        Raises:
            OccupiedError: another process has it.
        """
        for _ in range(_TRIES):
            if await session.value("lock", self._address.schema):
                return
            # One that was killed a moment ago: the server has not noticed yet.
            await asyncio.sleep(_LOOK_AGAIN_S)
        raise OccupiedError(await self._who(session))

    async def take(self, session: Session) -> None:
        """Become the owner; the lock is held and the schema is there.

        Raises:
            OccupiedError: the former owner came back in the time that it has for that.
        """
        row = await session.row("owner")
        if not row["released"] and not _is_gone(row):
            await self._wait_for(session, row)
        self.fencing = await session.value("take", machine(), os.getpid(), socket.gethostname())

    async def regain(self, session: Session) -> int:
        """After a lost connection: lock again through a new one, and say which commit was the last.

        By then nothing is under way any more that the lost connection began: the server frees the lock of a connection
        after it ended its transaction.

        Raises:
            LostError: another process took over.
            UnavailableError: somebody looks at the lock just now, or the server still holds it for the lost connection.
        """
        schema = self._address.schema
        if not await session.value("lock", schema):
            await session.value("end_former", schema, self.application)
            self._check((await session.row("owner"))["fencing"])
            raise UnavailableError(f"{self._address.name} still holds the lock of the lost connection")
        row = await session.row("lock_owner")
        self._check(row["fencing"])
        batch: int = row["batch"]
        return batch

    async def release(self, session: Session) -> None:
        """Let the next owner in at once."""
        await session.run("release", self.fencing)

    def lost(self) -> LostError:
        """What to say when the fencing number is another one."""
        return LostError(
            f"another process took {self._address.name} over while this one was not connected; nothing is written "
            "any more: restart this process, or leave the work to the other"
        )

    def _check(self, fencing: int) -> None:
        if fencing != self.fencing:
            raise self.lost()

    async def _wait_for(self, session: Session, row: Any) -> None:
        """Stand aside for a while: only who cannot be seen to be dead and has no connection gets it."""
        schema = self._address.schema
        log.warning(
            "the last owner did not say goodbye; waiting for it", process=row["process"], host=row["name"]
        )
        for _ in range(round(self._take_over_s / _LOOK_AGAIN_S)):
            await session.value("unlock", schema)
            await asyncio.sleep(_LOOK_AGAIN_S)
            if not await session.value("lock", schema):
                raise OccupiedError(await self._who(session))
            now = await session.row("owner")
            if (now["fencing"], now["batch"]) != (row["fencing"], row["batch"]) or now["released"]:
                row = now
            if row["released"] or _is_gone(row):
                return

    async def _who(self, session: Session) -> str:
        found = await session.row("find_version", self._address.schema)
        row = await session.row("owner") if found["ours"] else None
        who = (
            f"process {row['process']} on {row['name']}" if row and not row["released"] else "another process"
        )
        return f"{self._address.name} is in use by {who}; stop that one, or give this one another schema (?schema=NAME)"


def machine() -> str:
    """This machine until its next start, as processes see it that can ask after each other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return f"{socket.gethostname()} {sys.platform}"
    return f"{boot} {space}"


def _is_gone(row: Any) -> bool:
    """Whether the owner in the row is known to be dead."""
    if row["machine"] != machine() or sys.platform == "win32":  # there, asking after a process would end it
        return False
    try:
        os.kill(row["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
