"""What people do with queues, and with the line of one account: look, set, pause, empty, clean."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from paceline.engine import documents
from paceline.engine.actions import Actions
from paceline.engine.core import Core
from paceline.engine.counting import VIEWS, Counted, Pauses, counted, view_counts
from paceline.engine.keys import Caller, DeniedError
from paceline.engine.places import wides_of_queues
from paceline.engine.reading import read_message, whole_view
from paceline.engine.serial import Serial
from paceline.engine.views import message_view
from paceline.model import checks
from paceline.model.accounts import AccountSpec, QueueSpec, default_queues
from paceline.model.errors import InvalidError, NotFoundError, Problem
from paceline.model.states import BY_LABEL, ENDED, WAITING, State
from paceline.pacing.scopes import place_name
from paceline.stores.base import Daily, Filter, StoredMessage

SLICE = 1000
MOST_JOBS = 1000
CLEANABLE = tuple(sorted(state.label for state in ENDED))
CLEARABLE: dict[str, tuple[State, ...]] = {
    "pending": (State.PENDING,),
    "retrying": (State.RETRYING,),
    "failed": (State.FAILED,),
}
_ALL_OF_ACCOUNT = (State.PENDING, State.SCHEDULED, State.RETRYING, State.FAILED)

log = structlog.get_logger("paceline.queues")


class Queues:
    """The verbs of queues. A queue is shared by all tenants; each sees and touches its own messages in it."""

    def __init__(self, core: Core, actions: Actions) -> None:
        """`actions` removes messages."""
        self._core, self._actions = core, actions
        self._changes = Serial()

    # -- settings

    async def list(self, caller: Caller) -> dict[str, Any]:
        """All queues with their settings."""
        names = self._names(caller)
        items = [documents.queue_view(self._core.directory.queue(name)) for name in names]
        return {"items": items, "next": None}

    async def put(self, caller: Caller, name: str, body: Any) -> dict[str, Any]:
        """Add or replace a queue's settings; what is left out gets its default. A pause stays.

        Raises:
            InvalidError: the body is wrong.
            DeniedError: the caller is no admin of the installation.
        """
        caller.must("admin")
        self._must_be_installation(caller)
        base = default_queues().get(name, QueueSpec(name=name))
        spec = documents.read_queue(name, body, base)
        async with self._changes.of(name):
            await self._keep(msgspec.structs.replace(spec, paused=self._core.directory.queue(name).paused))
        return documents.queue_view(self._core.directory.queue(name))

    async def pause(self, caller: Caller, name: str) -> dict[str, Any]:
        """Send nothing of the queue until `resume`; survives a restart.

        Raises:
            NotFoundError: there is no such queue.
            DeniedError: the caller is no operator of the installation.
        """
        return await self._set_paused(caller, name, paused=True)

    async def resume(self, caller: Caller, name: str) -> dict[str, Any]:
        """Send again.

        Raises:
            NotFoundError: there is no such queue.
            DeniedError: the caller is no operator of the installation.
        """
        return await self._set_paused(caller, name, paused=False)

    async def _set_paused(self, caller: Caller, name: str, *, paused: bool) -> dict[str, Any]:
        caller.must("operator")
        self._must_be_installation(caller)
        self._must_exist(caller, name)
        async with self._changes.of(name):
            await self._keep(msgspec.structs.replace(self._core.directory.queue(name), paused=paused))
        log.info("queue paused" if paused else "queue resumed", queue=name, caller=caller.name)
        return documents.queue_view(self._core.directory.queue(name))

    async def _keep(self, spec: QueueSpec) -> None:
        core = self._core
        document = documents.queue_document(spec, core.clock.now())

        async def act() -> None:
            core.directory.queues[spec.name] = spec
            core.gates.set_queue(spec)

        if spec.concurrency == core.directory.queue(spec.name).concurrency:
            await core.store.put([document])
            await act()
        else:
            dropped = [] if spec.concurrency is not None else [place_name("queue", spec.name)]
            await core.change_wide(wides_of_queues([spec]), dropped, act, [document])
        core.dispatcher.wake()
        core.bus.publish("queue-status", {"queue": spec.name, "paused": spec.paused}, queue=spec.name)

    # -- looking

    async def status(self, caller: Caller) -> dict[str, Any]:
        """Exact counts of every queue."""
        core = self._core
        found: defaultdict[str, list[Counted]] = defaultdict(list)
        for each in await counted(core, caller):
            found[each.key.queue].append(each)
        pauses = Pauses(core)
        names = sorted({*core.directory.queues, *found})
        queues = [
            {
                "name": name,
                "counts": view_counts(found[name], pauses),
                "paused": core.directory.queue(name).paused,
            }
            for name in names
        ]
        return {
            "timestamp": checks.print_time(core.clock.now()),
            "queues": queues,
            "summary": _summary(queues),
        }

    async def jobs(self, caller: Caller, name: str, status: str, start: int, end: int) -> dict[str, Any]:
        """Messages number `start` to `end` (both included) of a view, newest first.

        Raises:
            InvalidError: there is no such view, or the range is none.
            NotFoundError: there is no such queue.
        """
        if status not in VIEWS:
            raise InvalidError([Problem("/status", "must be one of " + ", ".join(VIEWS))])
        if not 0 <= start <= end < start + MOST_JOBS:
            raise InvalidError([Problem("/end", f"must be from start to start + {MOST_JOBS - 1}")])
        self._must_exist(caller, name)
        pauses = Pauses(self._core)
        found = [each for each in await counted(self._core, caller) if each.key.queue == name]
        total = view_counts(found, pauses)[status]
        rows = await self._rows(caller, name, status, start, end - start + 1, pauses) if total else []
        items = [message_view(row, self._core.progress.get(row.id)) for row in rows]
        return {"items": items, "next": None, "start": start, "end": end, "total": total}

    async def _rows(
        self, caller: Caller, name: str, status: str, skip: int, most: int, pauses: Pauses
    ) -> Sequence[StoredMessage]:
        core = self._core
        wanted = self._filter(caller, name, VIEWS[status])
        paused = {"waiting": False, "paused": True}.get(status)
        rows: Sequence[StoredMessage] = []
        before = None
        while len(rows) < most:
            page = await core.store.find(wanted, before, SLICE)
            await core.know(row.flow for row in page)
            fitting = [row for row in page if paused is None or pauses.holds(core.flow_key(row)) is paused]
            rows = [*rows, *fitting[skip : skip + most - len(rows)]]
            skip = max(0, skip - len(fitting))
            if len(page) < SLICE:
                break
            before = page[-1].id
        return rows

    async def job(self, caller: Caller, name: str, id_: str) -> dict[str, Any]:
        """One message of the queue, in full.

        Raises:
            NotFoundError: it is not in this queue.
        """
        return await whole_view(self._core, await self._in_queue(caller, name, id_))

    async def remove_job(self, caller: Caller, name: str, id_: str) -> None:
        """Remove one message of the queue; as `Actions.delete`."""
        caller.must("operator")
        await self._in_queue(caller, name, id_)
        await self._actions.delete(caller, id_)

    async def retry_job(self, caller: Caller, name: str, id_: str) -> dict[str, Any]:
        """Send one message of the queue again; as `Actions.retry`."""
        caller.must("operator")
        await self._in_queue(caller, name, id_)
        return await self._actions.retry(caller, id_)

    async def _in_queue(self, caller: Caller, name: str, id_: str) -> StoredMessage:
        row = await read_message(self._core, caller, id_)
        if row.queue != name:
            raise NotFoundError(f"there is no message '{id_[:40]}' in queue '{name[:60]}'")
        return row

    # -- making room

    async def empty(self, caller: Caller, name: str) -> dict[str, int]:
        """Remove the caller's waiting messages of the queue: pending, scheduled and retrying ones.

        Raises:
            NotFoundError: there is no such queue.
        """
        caller.must("operator")
        self._must_exist(caller, name)
        removed = await self._actions.delete_all(self._filter(caller, name, tuple(WAITING)))
        log.info("queue emptied", queue=name, removed=removed, caller=caller.name)
        return {"removed": removed}

    async def clean(self, caller: Caller, name: str, grace_ms: int, type_: str) -> dict[str, int]:
        """Remove the caller's messages that ended in this way at least `grace_ms` ago.

        Raises:
            InvalidError: the type is not that of an ending.
            NotFoundError: there is no such queue.
        """
        caller.must("operator")
        self._must_exist(caller, name)
        if type_ not in CLEANABLE:
            raise InvalidError([Problem("/type", f"must be one of {', '.join(CLEANABLE)}")])
        wanted = self._filter(caller, name, (BY_LABEL[type_],))
        before = self._core.clock.ceiling() - grace_ms + 1
        removed = 0
        while (some := await self._core.store.clean(wanted, before, None, SLICE)) > 0:
            removed += some
            if some < SLICE:
                break
        log.info("queue cleaned", queue=name, type=type_, removed=removed, caller=caller.name)
        return {"removed": removed}

    # -- the line of one account

    async def account_queue(self, caller: Caller, name: str) -> dict[str, Any]:
        """What waits for an account and what it did since ever, as far as the caller may see it.

        A message counts for the account it is pinned to, or else for the one that tried it last.

        Raises:
            NotFoundError: there is no such account for the caller.
        """
        spec = self._account(caller, name)
        sums = dict.fromkeys(("pending", "scheduled", "processing", "retrying", "failed"), 0)
        for each in await counted(self._core, caller):
            if each.account == spec.id and each.state.label in sums:
                sums[each.state.label] += each.count
        life = [
            row
            for row in await self._core.store.daily([0])
            if row.account == spec.id and caller.sees(row.tenant)
        ]
        return {"account": name, **sums, "total": sum(sums.values()), "stats": _life(life)}

    async def clear_account(self, caller: Caller, name: str, status: str | None) -> dict[str, int]:
        """Remove the caller's messages of an account in a state; without one, all that its view counts
        but what is being sent.

        Raises:
            InvalidError: messages in such a state cannot be cleared.
            NotFoundError: there is no such account for the caller.
        """
        caller.must("operator")
        spec = self._account(caller, name)
        if status is not None and status not in CLEARABLE:
            raise InvalidError([Problem("/status", "must be one of " + ", ".join(CLEARABLE))])
        states = _ALL_OF_ACCOUNT if status is None else CLEARABLE[status]
        wanted = Filter(tenant=_tenant(caller), account=(spec.id,), state=tuple(map(int, states)))
        removed = await self._actions.delete_all(wanted)
        log.info("account cleared", account=spec.id, status=status, removed=removed, caller=caller.name)
        return {"removed": removed}

    def _account(self, caller: Caller, name: str) -> AccountSpec:
        directory = self._core.directory
        spec = directory.find_account(caller.own, name)
        if spec is None:
            near = [each.name for each in directory.accounts.values() if caller.sees(each.owner)]
            raise NotFoundError(f"there is no account '{name[:60]}'{checks.suggestion(name, near)}")
        return spec

    # -- names

    def _filter(self, caller: Caller, name: str, states: tuple[State, ...]) -> Filter:
        return Filter(tenant=_tenant(caller), queue=(name,), state=tuple(sorted(map(int, states))))

    def _names(self, caller: Caller) -> Sequence[str]:
        keys = self._core.gates.keys.values()
        return sorted({*self._core.directory.queues, *(key.queue for key in keys if caller.sees(key.tenant))})

    def _must_exist(self, caller: Caller, name: str) -> None:
        if name in self._core.directory.queues:
            return
        names = self._names(caller)
        if name not in names:
            raise NotFoundError(f"there is no queue '{name[:60]}'{checks.suggestion(name, names)}")

    @staticmethod
    def _must_be_installation(caller: Caller) -> None:
        if caller.tenant is not None:
            raise DeniedError("queues are shared by all tenants: this takes a key of the whole installation")


def _tenant(caller: Caller) -> tuple[str, ...]:
    return () if caller.tenant is None else (caller.tenant,)


def _summary(queues: list[dict[str, Any]]) -> dict[str, int]:
    sums = {view: sum(queue["counts"][view] for queue in queues) for view in VIEWS}
    return {
        "totalQueues": len(queues),
        "totalWaiting": sums["waiting"],
        "totalActive": sums["active"],
        "totalCompleted": sums["completed"],
        "totalFailed": sums["failed"],
    }


def _life(rows: list[Daily]) -> dict[str, Any]:
    completed, failed = sum(row.completed for row in rows), sum(row.failed for row in rows)
    retries, sending = sum(row.retries for row in rows), sum(row.send_ms for row in rows)
    calls = completed + failed + retries
    return {
        "total": completed + failed,
        "completed": completed,
        "failed": failed,
        "retries": retries,
        "avg_time": round(sending / calls, 1) if calls else 0,
    }
