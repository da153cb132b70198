"""Takes messages out of an application's outbox: read in order, added as any other, and only then deleted there.

A row's key is its message's idempotency key, so that a crash between the two, or a second relay, adds nothing twice.
As long as the key lives, that is: it is deleted with its message. So nothing is cleaned that may still have its row.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from paceline.engine.core import Core
from paceline.engine.intake import Prepared, fingerprint
from paceline.engine.keys import Caller
from paceline.engine.messages import Messages
from paceline.model import checks
from paceline.model.errors import ConflictError, InvalidError, PacelineError, Problem
from paceline.model.messages import Added
from paceline.stores.outbox import LARGEST, OutboxDesk, OutboxPlace, OutboxRow, OutboxSource, Refusal

ROWS: Final = 500
"""Rows that are read, added and deleted together."""
BYTES: Final = 8 * 1024**2
LOOK_S: Final = 5.0
"""How long at most a committed row lies there when nobody rang."""
AWAY_S: Final = 1.0
AWAY_MOST_S: Final = 30.0
_ERROR: Final = 2000
"""Characters of a refusal that are kept."""

log = structlog.get_logger("paceline.outbox")


class Relay:
    """The relay of one outbox."""

    def __init__(
        self, place: OutboxPlace, source: OutboxSource, desk: OutboxDesk, messages: Messages, core: Core
    ) -> None:
        """Nothing is read yet."""
        self.place, self.desk = place, desk
        self.away = "it was not reached yet"
        """Why it cannot be read now; empty while it can."""
        self.taken = self.refused = 0
        self._source = source
        self._messages, self._core = messages, core
        self._caller = Caller(place.tenant, "sender", "outbox")
        self._unsettled_since: int | None = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"outbox {self.place.name}")

    async def stop(self) -> None:
        """Read no more. A batch under way is given up wherever it is: the next start reads it again."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        await self._source.close()

    @property
    def is_here(self) -> bool:
        """Whether this node relays: the one that cleans does, of several, since it has to know what may have its row."""
        return 0 in self._core.owned

    @property
    def cleanable(self) -> int | None:
        """Messages made from this moment on may still have their row in the outbox; None: none has.

        After a start that is any message, until the outbox was worked through once.
        """
        return self._unsettled_since

    async def _run(self) -> None:
        pause = AWAY_S
        while True:
            if not self.is_here:
                self._elsewhere()
                await asyncio.sleep(AWAY_S)
                continue
            try:
                await self._source.open()
                self._back()
                pause = AWAY_S
                await self._work()
            except PacelineError as error:
                self._lost(str(error))
            except Exception as error:
                log.exception("the relay of an outbox failed, and will try again", outbox=self.place.name)
                self._lost(f"{type(error).__name__}: {error}")
            await self._source.close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, AWAY_MOST_S)

    async def _work(self) -> None:
        while self.is_here:
            begun = self._core.clock.now()
            rows = await self._source.next(ROWS, BYTES)
            if not rows:
                self._unsettled_since = None
                await self._source.wait(LOOK_S)
                continue
            if self._unsettled_since is None:
                self._unsettled_since = begun
            taken, refused = await self._pass_on(rows)
            await self._source.finish(taken, refused, self._core.clock.now())
            self.taken += len(taken)
            self.refused += len(refused)

    async def _pass_on(self, rows: Sequence[OutboxRow]) -> tuple[list[OutboxRow], list[Refusal]]:
        """Add what passes every check; answers what is acknowledged, and what was refused."""
        refused: list[Refusal] = []
        ready: list[tuple[OutboxRow, Prepared]] = []
        for row in rows:
            try:
                ready.append((row, self._prepare(row)))
            except PacelineError as error:
                refused.append(self._refuse(row, error))
        taken = await self._add(ready, refused)
        return taken, refused

    async def _add(
        self, ready: Sequence[tuple[OutboxRow, Prepared]], refused: list[Refusal]
    ) -> list[OutboxRow]:
        """Store them together; if the store refuses what one of them says, each alone."""
        if not ready:
            return []
        try:
            answers = await self._messages.add_all([prepared for _, prepared in ready])
        except (InvalidError, ConflictError) as error:
            if len(ready) == 1:
                refused.append(self._refuse(ready[0][0], error))
                return []
            return [row for each in ready for row in await self._add([each], refused)]
        taken = []
        for (row, prepared), added in zip(ready, answers, strict=True):
            mismatch = self._mismatch(prepared, added)
            if mismatch is None:
                taken.append(row)
            else:
                refused.append(self._refuse(row, mismatch))
        return taken

    def _mismatch(self, prepared: Prepared, added: Added) -> ConflictError | None:
        """A key of the application's own choice that stands for another message already."""
        if added.duplicate:
            try:
                self._messages.must_match(prepared.row.fingerprint, added)
            except ConflictError as error:
                return error
        return None

    def _prepare(self, row: OutboxRow) -> Prepared:
        body = self._read(row)
        given = dict(body)
        if given.get("idempotency_key") is None:
            given["idempotency_key"] = row.key
        tenant = given.get("tenant")
        if tenant is not None and tenant != self.place.tenant:
            raise InvalidError(
                [
                    Problem(
                        "/tenant", f"this outbox belongs to tenant {self.place.tenant}; leave the field out"
                    )
                ]
            )
        now = self._core.clock.now()
        if "delay" not in given and self._is_past(given.get("scheduled_at"), now):
            given["scheduled_at"] = None  # it lay in the outbox meanwhile: its moment is now
        prepared = self._core.intake.prepare(given, self.place.tenant, now)
        prepared.row.fingerprint = fingerprint(body)  # of what the row says: the same whenever it is read
        return prepared

    def _read(self, row: OutboxRow) -> Mapping[str, Any]:
        if row.size > LARGEST:
            raise InvalidError([Problem("", f"the message is larger than {LARGEST // 1024**2} MiB")])
        try:
            body = msgspec.json.decode(row.message)
        except (ValueError, RecursionError) as error:
            raise InvalidError([Problem("", f"the message is not JSON: {error}")]) from None
        if not isinstance(body, dict):
            raise InvalidError([Problem("", "the message must be a JSON object")])
        return body

    def _is_past(self, moment: object, now: int) -> bool:
        try:
            return moment is not None and checks.check_time(moment) <= now + self._core.clock.ahead()
        except ValueError:
            return False  # the intake says what is wrong with it

    def _refuse(self, row: OutboxRow, error: PacelineError) -> Refusal:
        text = str(error)[:_ERROR].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        log.warning("a row of the outbox was refused", outbox=self.place.name, key=row.key, reason=text)
        return Refusal(row, text)

    def _back(self) -> None:
        if self.away:
            log.info("the outbox is relayed", outbox=self.place.name)
        self.away = ""

    def _elsewhere(self) -> None:
        """Another node cleans, and relays: if it becomes this one, it is as after a start."""
        self.away = ""
        self._unsettled_since = 0

    def _lost(self, why: str) -> None:
        if why != self.away:
            log.warning("the outbox cannot be relayed now; trying again", outbox=self.place.name, reason=why)
        self.away = why


class Relays:
    """The relays of all outboxes of a server."""

    def __init__(self, core: Core) -> None:
        """None yet."""
        self.all: list[Relay] = []
        core.upkeep.cleanable = self._cleanable

    def start(self) -> None:
        """Begin to read all of them."""
        for relay in self.all:
            relay.start()

    async def stop(self) -> None:
        """Read none of them any more."""
        for relay in self.all:
            await relay.stop()

    def _cleanable(self) -> int | None:
        moments = [moment for relay in self.all if (moment := relay.cleanable) is not None]
        return min(moments, default=None)
