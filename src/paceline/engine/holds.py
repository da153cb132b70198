"""The hold: the whole installation sends nothing, over restarts, until a person releases it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from paceline.engine import installation as places
from paceline.engine import revisions
from paceline.engine.actions import Actions
from paceline.engine.core import Core
from paceline.engine.documents import Draft
from paceline.engine.installation import Hold, Installation, RunFile
from paceline.engine.keys import Caller, DeniedError
from paceline.engine.revisions import Planned
from paceline.model import checks
from paceline.model.errors import ConflictError
from paceline.model.messages import FlowKey
from paceline.model.states import WAITING
from paceline.pacing.forecast import Reason
from paceline.stores.base import Filter, StoredMessage

HOW = "release it with: paceline release   (POST /api/v1/hold/release)"
_PAGE = 1000

log = structlog.get_logger("paceline.hold")


class Holds:
    """The verbs of the hold. What is under way when it begins goes on; messages are still taken in."""

    def __init__(self, core: Core, actions: Actions) -> None:
        """Not known until `load`."""
        self._core, self._actions = core, actions
        self._known = Installation("")
        self._changing = asyncio.Lock()

    @property
    def held(self) -> Hold | None:
        """The hold in force."""
        return self._known.hold

    async def load(self) -> None:
        """Find out whether this is where the database was last, and hold everything back if it is not."""
        core, now = self._core, self._core.clock.now()
        documents = await core.store.documents(places.KIND)
        known = places.read(documents)
        if core.store.nodes is not None and documents:
            self.follow(known)  # it may be running elsewhere: nothing of it changes by one more node
            return
        file = (await core.store.health()).get("file")
        here, run = None, None
        if isinstance(file, str):
            here, run = places.place_of(Path(file), known.id), RunFile(Path(file))
        await self._keep(places.started(known, here, run.read(known.id) if run else 0, now))
        if run is not None:
            run.write(self._known.id, self._known.run)

    def follow(self, known: Installation) -> None:
        """As it is in the store now: hold or release here as well, once, however often it is told."""
        was, self._known = self.held, known
        if self.held is not None and was is None:
            self._close(self.held)
            self._warn(self.held)
        elif self.held is None and was is not None:
            self._open()

    def status(self, caller: Caller) -> dict[str, Any]:
        """Whether everything is on hold, since when and why."""
        hold = self.held
        if hold is None:
            return {"held": False}
        return {
            "held": True,
            "cause": hold.cause,
            "text": hold.text if caller.tenant is None else "the installation is on hold",
            "since": checks.print_time(hold.since),
            "copied_at": None if hold.copied_at is None else checks.print_time(hold.copied_at),
        }

    async def hold(self, caller: Caller, body: Any) -> dict[str, Any]:
        """Send nothing more until `release`, over restarts as well. A hold that is there stays as it is.

        Raises:
            InvalidError: the reason is no text.
            DeniedError: the caller is no operator of the installation.
        """
        self._must(caller, "operator")
        draft = Draft(body, ("reason",))
        reason = draft.take("reason", checks.check_label)
        draft.check()
        async with self._changing:
            if self.held is None:
                await self._hold(caller, reason)
        return self.status(caller)

    async def _hold(self, caller: Caller, reason: Any) -> None:
        text = f"{caller.name} asked for it" + ("" if reason is msgspec.UNSET else f": {reason}")
        made = Hold("asked", text, self._core.clock.now())
        await self._keep(msgspec.structs.replace(self._known, hold=made))

    async def release(self, caller: Caller, body: Any, dry_run: bool) -> dict[str, Any]:
        """Send again; first cancel, if asked, every waiting message that was due before a moment.

        What was taken in since the copy was made is nobody else's and is not cancelled. A dry run only counts.

        Raises:
            InvalidError: the moment is wrong; nothing was changed.
            ConflictError: nothing is on hold.
            DeniedError: the caller is no admin of the installation.
        """
        self._must(caller, "admin")
        draft = Draft(body, ("cancel_before",))
        before = draft.take("cancel_before", checks.check_time)
        draft.check()
        async with self._changing:
            hold = self.held
            if hold is None:
                raise ConflictError("nothing is on hold")
            moment = 0 if before is msgspec.UNSET else before
            if dry_run:
                return {"held": True, **await self._count(hold, moment)}
            cancelled = 0
            if moment:
                cancelled = await self._actions.cancel_all(_came_with(hold), _due_before(moment))
            await self._keep(msgspec.structs.replace(self._known, hold=None, epoch=self._known.epoch + 1))
        log.warning("released: messages are sent again", caller=caller.name, cancelled=cancelled)
        return {"held": False, "cancelled": cancelled}

    async def _keep(self, installation: Installation) -> None:
        now = self._core.clock.now()
        await self._core.store.put([places.to_document(installation, now)])
        self.follow(installation)  # on a shared store the news of it may have come first

    @staticmethod
    def _warn(hold: Hold) -> None:
        log.warning("ON HOLD: nothing is sent", why=hold.text, cause=hold.cause, release=HOW)

    def _close(self, hold: Hold) -> None:
        self._core.agenda.hold()
        self._core.outlook.held = Reason("held", f"everything is on hold: {hold.text}")

    def _open(self) -> None:
        self._core.outlook.held = None
        self._core.agenda.let_go()
        self._core.dispatcher.wake()

    async def _count(self, hold: Hold, before: int) -> Mapping[str, int]:
        """How many wait, and how many of them a release with this moment would cancel."""
        states = tuple(sorted(map(int, WAITING)))
        waiting = sum((await self._core.store.count(Filter(state=states))).values())
        wanted = msgspec.structs.replace(_came_with(hold), state=states)
        due, last = 0, None
        while before and (rows := await self._core.store.find(wanted, last, _PAGE)):
            due += sum(row.due_at < before for row in rows)
            last = rows[-1].id
        return {"waiting": waiting, "would_cancel": due}

    @staticmethod
    def _must(caller: Caller, role: str) -> None:
        caller.must(role)
        if caller.tenant is not None:
            raise DeniedError("the hold is everybody's: this takes a key of the whole installation")


def _came_with(hold: Hold) -> Filter:
    return Filter() if hold.cause == "asked" else Filter(created_to=hold.since)


def _due_before(moment: int) -> revisions.Plan:
    def plan(row: StoredMessage, key: FlowKey, now: int, ahead: int) -> Planned:
        if row.due_at >= moment:
            raise ConflictError("it is due later")
        return revisions.plan_cancel(row, key, now, ahead)

    return plan
