"""What people do to messages that are there: retry, cancel, settle, delete, change; one, or all of a filter."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import UNSET

from paceline.engine import revisions
from paceline.engine.core import Core
from paceline.engine.documents import Draft
from paceline.engine.keys import Caller
from paceline.engine.queries import parse_query
from paceline.engine.reading import read_message, whole_view
from paceline.engine.revisions import Plan, Planned
from paceline.engine.views import message_view
from paceline.model import checks, ids
from paceline.model.errors import ConflictError, InvalidError, Problem
from paceline.model.messages import Entry
from paceline.model.states import ENDED, WAITING, State
from paceline.stores.base import Filter, StoredMessage

SLICE = 500
"""Messages changed in one transaction: small enough that sending never waits for it."""
MAX_IDS = 10_000
EXAMPLES = 10
ACTIONS = ("retry", "cancel", "delete", "patch")

_FIELDS = ("action", "filter", "ids", "set", "expect", "everything")
_PLANS = {
    "retry": revisions.plan_retry,
    "cancel": revisions.plan_cancel,
    "delete": revisions.plan_delete,
}
_FROM = {
    "retry": revisions.RETRIABLE,
    "cancel": WAITING,
    "delete": revisions.DELETABLE,
    "patch": WAITING,
}

log = structlog.get_logger("paceline.actions")


class Order(msgspec.Struct, frozen=True):
    """An action on many messages, checked: those of `wanted`, or those with `ids`."""

    action: str
    plan: Plan
    wanted: Filter | None
    ids: tuple[int, ...]
    expect: int | None


class Actions:
    """The verbs that change messages."""

    def __init__(self, core: Core) -> None:
        """`core` holds the parts of the engine."""
        self._core = core
        # Two patches of one message that were planned from the same row would undo each other.
        self._patching = asyncio.Lock()

    # -- one message

    async def patch(self, caller: Caller, id_: str, changes: Any) -> dict[str, Any]:
        """Change priority, moment, account or expiry of a waiting message.

        Raises:
            InvalidError: the changes are wrong.
            ConflictError: the message does not wait any more.
            NotFoundError, DeniedError: as they say.
        """
        caller.must("sender")
        plan = self._patch(changes)
        async with self._patching:
            return await self._one(caller, id_, plan)

    async def retry(self, caller: Caller, id_: str) -> dict[str, Any]:
        """Send a message again, at once, with all its attempts.

        Raises:
            ConflictError: it was sent, is being sent, stands in line, or its outcome is uncertain.
            NotFoundError, DeniedError: as they say.
        """
        caller.must("operator")
        return await self._one(caller, id_, revisions.plan_retry)

    async def cancel(self, caller: Caller, id_: str) -> dict[str, Any]:
        """Withdraw a waiting message.

        Raises:
            ConflictError: it does not wait.
            NotFoundError, DeniedError: as they say.
        """
        caller.must("sender")
        return await self._one(caller, id_, revisions.plan_cancel)

    async def settle(self, caller: Caller, id_: str, as_: Any) -> dict[str, Any]:
        """Say what became of an uncertain message: ``completed``, ``failed``, or ``pending`` to send it again.

        Raises:
            InvalidError: another word.
            ConflictError: it is not uncertain.
            NotFoundError, DeniedError: as they say.
        """
        caller.must("operator")
        event = revisions.SETTLEMENTS.get(as_) if isinstance(as_, str) else None
        if event is None:
            raise InvalidError([Problem("/as", "must be one of " + ", ".join(revisions.SETTLEMENTS))])
        log.info("settled by a person", message=id_, settled_as=as_, caller=caller.name)
        return await self._one(caller, id_, revisions.plan_settle(event))

    async def delete(self, caller: Caller, id_: str) -> None:
        """Remove a message that waits or has ended. Its journal lines stay: limits are rebuilt from them.

        Raises:
            ConflictError: it is being sent, or its outcome is uncertain.
            NotFoundError, DeniedError: as they say.
        """
        caller.must("sender")
        await self._change(caller, id_, revisions.plan_delete)

    async def _one(self, caller: Caller, id_: str, plan: Plan) -> dict[str, Any]:
        await self._change(caller, id_, plan)
        return await whole_view(self._core, await read_message(self._core, caller, id_))

    async def _change(self, caller: Caller, id_: str, plan: Plan) -> None:
        core = self._core
        for _ in range(2):
            row = await read_message(core, caller, id_)
            planned = plan(row, core.flow_key(row), core.clock.now(), core.clock.ahead())
            if await self._apply([planned]):
                return
        raise ConflictError("the message changed at the same moment; look at it and try again")

    def _patch(self, changes: Any, under: str = "") -> Plan:
        core = self._core
        read = revisions.read_changes(changes, core.clock.now() + core.clock.ahead(), under)
        return revisions.plan_patch(read, core.directory, core.intake.flow_number)

    # -- many messages

    async def act(self, caller: Caller, body: Any, dry_run: bool) -> dict[str, Any]:
        """Do one thing to every message of a filter or a list of ids; a dry run tells to how many.

        Messages in a state that does not allow it are skipped, and so are those that change meanwhile.

        Raises:
            InvalidError: the order is wrong; nothing was done.
            ConflictError: another number of messages matches than was expected; nothing was done.
        """
        caller.must("operator")
        order = self._read_order(caller, body)
        counts = await self._count(caller, order)
        matched = sum(counts.values())
        if order.expect is not None and order.expect != matched:
            raise ConflictError(
                f"{matched:,} messages match now, not {order.expect:,}; look again with a dry run"
            )
        able = sum(n for state, n in counts.items() if State(state) in _FROM[order.action])
        answer: dict[str, Any] = {"action": order.action, "matched": matched}
        if dry_run:
            examples = await self._examples(caller, order)
            return {**answer, "would_change": able, "skipped": matched - able, "examples": examples}
        changed = await self._of_order(caller, order)
        log.info("action", caller=caller.name, **answer, changed=changed)
        return {**answer, "changed": changed, "skipped": max(0, matched - changed)}

    async def delete_all(self, wanted: Filter) -> int:
        """Remove all messages of a filter that may be removed; answers how many."""
        return await self._all_of(wanted, "delete", revisions.plan_delete)

    async def cancel_all(self, wanted: Filter, plan: Plan) -> int:
        """Cancel all waiting messages of a filter that `plan` does not refuse; answers how many."""
        return await self._all_of(wanted, "cancel", plan)

    async def _of_order(self, caller: Caller, order: Order) -> int:
        if order.wanted is not None:
            return await self._all_of(order.wanted, order.action, order.plan)
        changed = 0
        async for rows in self._with_ids(caller, order.ids):
            changed += await self._slice(rows, order.action, order.plan)
        return changed

    async def _all_of(self, wanted: Filter, action: str, plan: Plan) -> int:
        """Walk the matching messages newest first: what is sent or added meanwhile lies behind us."""
        able = _narrowed(wanted, action)
        changed, before = 0, None
        while able is not None:
            rows = await self._core.store.find(able, before, SLICE)
            changed += await self._slice(rows, action, plan)
            if len(rows) < SLICE:
                break
            before = rows[-1].id
        return changed

    async def _with_ids(self, caller: Caller, wanted: Sequence[int]) -> AsyncIterator[list[StoredMessage]]:
        for start in range(0, len(wanted), SLICE):
            rows = await self._core.store.get(wanted[start : start + SLICE])
            yield [row for row in rows if caller.sees(row.tenant)]

    async def _count(self, caller: Caller, order: Order) -> dict[int, int]:
        if order.wanted is not None:
            return await self._core.store.count(order.wanted)
        counts: dict[int, int] = {}
        async for rows in self._with_ids(caller, order.ids):
            for row in rows:
                counts[row.state] = counts.get(row.state, 0) + 1
        return counts

    async def _examples(self, caller: Caller, order: Order) -> list[dict[str, Any]]:
        found: list[StoredMessage] = []
        if order.wanted is None:
            async for rows in self._with_ids(caller, order.ids):
                found += [row for row in rows if State(row.state) in _FROM[order.action]]
                if len(found) >= EXAMPLES:
                    break
        elif (able := _narrowed(order.wanted, order.action)) is not None:
            found = await self._core.store.find(able, None, EXAMPLES)
        return [message_view(row, self._core.progress.get(row.id), body=False) for row in found[:EXAMPLES]]

    async def _slice(self, rows: Sequence[StoredMessage], action: str, plan: Plan) -> int:
        if action != "patch":
            return await self._try(rows, plan)
        async with self._patching:
            return await self._try(await self._core.store.get([row.id for row in rows]), plan)

    async def _try(self, rows: Sequence[StoredMessage], plan: Plan) -> int:
        await self._core.know(row.flow for row in rows)
        planned = self._plan(rows, plan)
        changed = await self._apply(planned)
        missed = [each.row.id for each in planned if each.row.id not in changed]
        if missed:  # they changed since they were read: look once more
            again = await self._core.store.get(missed)
            await self._core.know(row.flow for row in again)
            changed |= await self._apply(self._plan(again, plan))
        return len(changed)

    def _plan(self, rows: Iterable[StoredMessage], plan: Plan) -> list[Planned]:
        now, ahead = self._core.clock.now(), self._core.clock.ahead()
        planned = []
        for row in rows:
            try:
                planned.append(plan(row, self._core.flow_key(row), now, ahead))
            except (ConflictError, InvalidError):
                continue  # this one cannot; the others can
        return planned

    # -- making it so

    async def _apply(self, planned: Sequence[Planned]) -> set[int]:
        """Write the revisions and tell whoever decides; answers the ids that still fitted."""
        if not planned:
            return set()
        core, now = self._core, self._core.clock.now()
        new = {p.revision.flow: p.key for p in planned if p.revision.flow not in core.gates.keys}
        if new:
            await core.store.add([], list(new.values()), now)
            core.gates.keys.update(new)
        changed = set(await core.store.revise([p.revision for p in planned], now))
        for each in planned:
            if each.row.id in changed:
                self._tell(each)
        return changed

    def _tell(self, planned: Planned) -> None:
        core, row, made = self._core, planned.row, planned.revision
        to = made.to_state
        moved = to != row.state or made.flow != row.flow
        if moved and row.state == State.PENDING:
            core.dispatcher.pending[row.flow] -= 1
        if to is None:
            core.progress.pop(row.id, None)
            return
        state = State(to)
        if state in ENDED:
            core.happenings.ended(row.id, state, row.tenant, row.queue, row.account or row.sender)
            return
        if made.expires_at is not None:
            core.upkeep.expires_at(made.expires_at)
        if state is State.SCHEDULED:
            core.upkeep.scheduled_at(made.due_at)
        elif state is State.RETRYING:
            core.upkeep.due_at(made.due_at)
        elif moved:
            entry = Entry(made.turn, row.id, made.expires_at, row.recipient, row.group)
            core.dispatcher.arrived(made.flow, planned.key, entry)

    # -- reading an order

    def _read_order(self, caller: Caller, body: Any) -> Order:
        draft = Draft(body, _FIELDS)
        action = draft.need("action", _action)
        expect = draft.take("expect", lambda v: checks.check_integer(v, 0, 1 << 53))
        everything = draft.take("everything", checks.check_boolean)
        wanted_ids = draft.take("ids", _ids)
        if draft.is_object and ("filter" in draft.body) == ("ids" in draft.body):
            draft.problem("/filter", "give either a filter or a list of ids")
        wanted = self._read_filter(caller, draft, everything is True) if "filter" in draft.body else None
        plan = self._read_plan(caller, draft, action) if action is not UNSET else None
        draft.check()
        assert plan is not None  # noqa: S101 - a missing or wrong action is a problem found above
        return Order(
            action,
            plan,
            wanted,
            () if wanted_ids is UNSET else wanted_ids,
            None if expect is UNSET else expect,
        )

    def _read_filter(self, caller: Caller, draft: Draft, everything: bool) -> Filter | None:
        given = draft.body["filter"]
        if not isinstance(given, dict):
            draft.problem("/filter", "must be an object")
            return None
        if not given and not everything:
            draft.problem("/filter", 'is empty: for all messages there are, say "everything": true as well')
            return None
        try:
            return parse_query(given, caller, self._core.directory.accounts)
        except InvalidError as error:
            draft.problems += [Problem("/filter" + each.field, each.problem) for each in error.problems]
            return None

    def _read_plan(self, caller: Caller, draft: Draft, action: str) -> Plan | None:
        if action != "patch":
            if "set" in draft.body:
                draft.problem("/set", "only goes with the action patch")
            return _PLANS[action]
        if "set" not in draft.body:
            draft.problem("/set", "is missing: what is to change, like in PATCH /api/v1/messages/ID")
            return None
        try:
            plan = self._patch(draft.body["set"], "/set")
        except InvalidError as error:
            draft.problems += error.problems
            return None
        self._check_account(caller, draft)
        return plan

    def _check_account(self, caller: Caller, draft: Draft) -> None:
        """An account that nobody has is refused once, rather than skipped for each message."""
        name = draft.body["set"].get("account")
        accounts = self._core.directory.accounts.values()
        usable = {spec.name for spec in accounts if caller.sees(spec.owner) or spec.shared}
        if name is not None and name not in usable:
            near = checks.suggestion(name, list(usable)[:200])
            draft.problem("/set/account", f"there is no account '{name}'{near}")


def _narrowed(wanted: Filter, action: str) -> Filter | None:
    """The part of a filter whose states allow the action; None where there is none."""
    able = _FROM[action]
    states = able.intersection(State(s) for s in wanted.state) if wanted.state else able
    return msgspec.structs.replace(wanted, state=tuple(sorted(map(int, states)))) if states else None


def _action(value: object) -> str:
    if not isinstance(value, str) or value not in ACTIONS:
        raise ValueError("must be one of " + ", ".join(ACTIONS) + checks.suggestion(str(value), ACTIONS))
    return value


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of message ids")
    if not 1 <= len(value) <= MAX_IDS:
        raise ValueError(f"must hold 1 to {MAX_IDS:,} ids; use a filter for more")
    numbers = (ids.from_text(each) for each in value)
    return tuple(dict.fromkeys(number for number in numbers if number is not None))
