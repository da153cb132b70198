"""The one task that writes: everything asked for while a commit runs shares the next one.

A commit whose connection is lost before the COMMIT was sent was not made. One whose connection is lost while the
answer to the COMMIT is awaited may have been made or not: then a new connection is opened, however long that takes,
and the number in the node's row tells which. Until then nobody gets an answer: neither 'yes', nor a 'no' after which
the same would be done a second time. What is asked for meanwhile is refused at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from paceline.model.errors import UnavailableError
from paceline.stores.calls import Call, Kind, by_kind, resolve
from paceline.stores.postgres_node import Membership
from paceline.stores.postgres_session import Session, collided, translate
from paceline.stores.postgres_writes import WORKS, greatest_id

_MOST_ROWS: Final = 5_000
"""A commit takes calls until it has this many rows, so that the last one in line does not wait for all."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_GOODBYE_S: Final = 2.0
_COLLISIONS: Final = 5
"""So often a commit is tried again that met another node's; the server ends one of two that wait for each other."""

log = structlog.get_logger("paceline.store")


class CollisionError(UnavailableError):
    """Another node's commit was in the way; nothing was done, and the same may be tried at once."""


class RolledBackError(UnavailableError):
    """The server forgot something that it had acknowledged."""


class Figures:
    """What `health` tells of the writer: a commit is everything from its first statement to the answer."""

    __slots__ = ("commit_ms", "commits", "failures", "looked_up", "reconnects")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.commits = 0
        self.failures = 0
        self.commit_ms = 0.0
        self.reconnects = 0
        self.looked_up = 0


class Writer:
    """Takes calls, commits them through its one connection, answers them; all on one event loop."""

    def __init__(
        self, name: str, session: Session, member: Membership, connect: Callable[[], Awaitable[Session]],
        told: Callable[[int], None] = lambda _partitions: None,
    ) -> None:  # fmt: skip
        """Start; `connect` makes a new connection, checked, in place of a lost one.

        `told` hears of the partitions, a bit for each, in which a commit left word for their owners.
        """
        self.figures = Figures()
        self._name = name
        self._session = session
        self._member = member
        self._told = told
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._pending: list[Call] = []
        self._woken = asyncio.Event()
        self._away: UnavailableError | None = None
        self._lost = False
        self._stopping = False
        self._number = 0  # of the commit tried last
        self._made = 0  # of the last one that is known to be made
        self._watch()
        self._task = self._loop.create_task(self._work(), name="paceline-store")

    @property
    def waiting(self) -> int:
        """How many calls wait for their commit."""
        return len(self._pending)

    @property
    def away(self) -> UnavailableError | None:
        """Why nothing can be written now; None when it can."""
        return self._away

    def submit(self, kind: Kind, work: Any, rows: int) -> asyncio.Future[Any]:
        """Ask for a write."""
        future = self._loop.create_future()
        if self._stopping:
            future.set_exception(UnavailableError("the store is closed"))
        elif self._away is not None:
            future.set_exception(type(self._away)(str(self._away)))
        else:
            self._pending.append(Call(kind, work, rows, future))
            self._woken.set()
        return future

    def ended(self) -> None:
        """Another node ended this one: say so to everybody who still wants something."""
        self._lose(self._member.lost())
        self._woken.set()

    async def stop(self) -> None:
        """Finish what was asked for, then leave and let the connection go."""
        self._stopping = True
        self._woken.set()
        await self._task

    async def _work(self) -> None:
        while not self._stopping or self._pending:
            await self._woken.wait()
            self._woken.clear()
            if self._lost:
                self._refuse_pending()
                continue
            if self._session.closed:  # lost while there was nothing to do
                await self._reconnect(None)
            while calls := self._take():
                try:
                    await self._serve(calls)
                except Exception as error:
                    log.exception("writer failed")
                    _answer(calls, error)
                resolve(calls)
        if not self._session.closed and not self._lost:
            with suppress(Exception):  # then others find out by themselves that this one is gone
                async with asyncio.timeout(_GOODBYE_S):
                    await self._member.leave(self._session)
        await self._session.close()

    def _take(self) -> list[Call]:
        """The next calls in the order they came, as many as make a good commit."""
        rows = 0
        for count, call in enumerate(self._pending):
            rows += call.rows
            if count and rows > _MOST_ROWS:
                taken, self._pending = self._pending[:count], self._pending[count:]
                return taken
        taken, self._pending = self._pending, []
        return taken

    async def _serve(self, calls: list[Call]) -> None:
        """Run the calls in one transaction; if that fails, each in its own, so that only the culprit fails."""
        error = await self._transact(calls)
        for _ in range(_COLLISIONS):
            if not isinstance(error, CollisionError):
                break
            error = await self._transact(calls)
        if error is None:
            return
        if self._session.closed:
            _answer(calls, error)
            await self._reconnect(None)
        elif len(calls) == 1:
            _answer(calls, error)
        elif not isinstance(error, UnavailableError):
            for call in calls:
                await self._serve([call])
        else:
            # Full: one more try without what takes up room, so that endings still get written.
            small = [call for call in calls if call.kind is not Kind.ADD]
            if not small or len(small) == len(calls) or await self._transact(small) is not None:
                small = []
            _answer([call for call in calls if call not in small], error)

    async def _transact(self, calls: Sequence[Call]) -> Exception | None:
        """One commit; each call gets its answer only when it is made."""
        if self._away is not None or self._session.closed:
            return self._away or UnavailableError(f"the connection to {self._name} was lost")
        begun = self._loop.time()
        self._number += 1
        number = self._number
        try:
            dealt = await self._run(calls, number)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must hear it and the task live
            self.figures.failures += 1
            await self._roll_back(error)
            if collided(error):
                return CollisionError(str(error))
            return self.away or translate(error, self._name)
        failure = await self._commit(number)
        if failure is not None:
            self.figures.failures += 1
            return failure
        self._made = number
        self.figures.commits += 1
        self.figures.commit_ms = (self._loop.time() - begun) * 1000
        if self._session.woken:
            self._told(self._session.woken)
        for chosen, answers in dealt:
            for call, answer in zip(chosen, answers, strict=True):
                call.answer = answer
        return None

    async def _run(self, calls: Sequence[Call], number: int) -> list[tuple[list[Call], Sequence[Any]]]:
        """Everything of a commit but the COMMIT: it can still be undone, and is when the connection is lost."""
        session = self._session
        kinds = [(kind, chosen, [call.work for call in chosen]) for kind, chosen in by_kind(calls)]
        session.owned, session.woken = self._member.owned, 0
        await session.connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        greatest = max(greatest_id(kind, works) for kind, _, works in kinds)
        if await session.value("fence", self._member.id, number, greatest) is None:
            self._lose(self._member.lost())
            raise self._member.lost()
        return [(chosen, await WORKS[kind](session, works)) for kind, chosen, works in kinds]

    async def _commit(self, number: int) -> Exception | None:
        """None when it is made: by the server's word, or after looking."""
        try:
            said = await self._session.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - no error tells for sure what became of it
            self._session.connection.terminate()
            self.figures.looked_up += 1
            if await self._reconnect(number):
                return None
            return self.away or translate(error, self._name)
        return None if said == "COMMIT" else UnavailableError(f"{self._name} undid a commit: {said}")

    async def _roll_back(self, error: Exception) -> None:
        connection = self._session.connection
        if isinstance(error, TimeoutError):
            connection.terminate()
        if self._session.closed:
            return
        try:
            await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - a connection of which that is not known is of no use
            connection.terminate()

    async def _reconnect(self, number: int | None) -> bool:
        """Open a new connection in place of a lost one, however long it takes; whether commit `number` was made."""
        if not self._lost:
            self._away = UnavailableError(
                f"the connection to {self._name} was lost; it is being opened again"
            )
            log.warning("connection lost", store=self._name)
        pause = _FIRST_PAUSE_S
        while number is not None or not self._lost:
            self._refuse_pending()
            try:
                made = await self._resume(number)
            except RolledBackError as error:
                self._lose(error)
                break
            except Exception as error:  # noqa: BLE001 - nothing that a server says may end this
                told = translate(error, self._name)
                if not self._lost:
                    self._away = told if isinstance(told, UnavailableError) else UnavailableError(str(told))
            else:
                if not self._lost:
                    self._away = None
                    log.info("connection open again", store=self._name)
                return made
            if self._stopping:
                break  # the next start reads everything anew
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._refuse_pending()
        return False

    async def _resume(self, number: int | None) -> bool:
        """Use a new connection; whether commit `number` was made, also where this node was ended after it."""
        session = await self._connect()
        try:
            last, ended = await self._member.regain(session)
            if last not in (self._made, number):
                raise RolledBackError(
                    f"{self._name} went back in time: commit {self._made} was acknowledged and it knows "
                    f"{last}; restart this process, so that it reads everything anew"
                )
        except BaseException:
            await session.close()
            raise
        if ended:
            await session.close()
            self._lose(self._member.lost())
            return last == number
        self._session = session
        self._watch()
        self.figures.reconnects += 1
        if number is not None:
            self._made = last
        return last == number

    def _watch(self) -> None:
        """Hear of it when the connection is lost while there is nothing to write, so that there is one when there is."""
        self._session.connection.add_termination_listener(lambda _connection: self._woken.set())

    def _lose(self, error: UnavailableError) -> None:
        if not self._lost:
            log.error("nothing is written any more", reason=str(error))
        self._lost = True
        self._away = error

    def _refuse_pending(self) -> None:
        """What came meanwhile was not begun: it may be asked for again."""
        refused, self._pending = self._pending, []
        _answer(refused, self._away or UnavailableError("the store is closed"))
        resolve(refused)


def _answer(calls: Sequence[Call], error: Exception) -> None:
    for call in calls:
        call.answer = error
