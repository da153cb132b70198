"""From what a person wants of one message to the revision that the store applies. Decides; does no I/O."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from paceline.engine.directory import Directory
from paceline.engine.documents import Draft
from paceline.model import checks
from paceline.model.accounts import DEFAULT_TENANT
from paceline.model.errors import ConflictError, IllegalTransitionError, InvalidError, Problem
from paceline.model.messages import NOBODY, FlowKey, Revision, lane_key
from paceline.model.states import ENDED, WAITING, Event, State, after, sources
from paceline.stores.base import StoredMessage

CHANGEABLE = ("priority", "scheduled_at", "account", "expires_at")
RETRIABLE = sources(Event.REVIVE) - {State.UNCERTAIN}
DELETABLE = WAITING | ENDED
SETTLEMENTS = {"completed": Event.CONFIRM, "failed": Event.DENY, "pending": Event.REVIVE}

_NO_RETRY = {
    State.COMPLETED: "the message was sent; send a new one rather than this one twice",
    State.PROCESSING: "the message is being sent at this moment",
    State.PENDING: "the message stands in line already and goes as soon as its limits allow",
    State.UNCERTAIN: "nobody knows whether the message was sent: settle it as completed, failed or pending",
}


class Planned(msgspec.Struct, frozen=True):
    """A revision of `row`, after which it belongs to the flow `key`."""

    row: StoredMessage
    key: FlowKey
    revision: Revision


Plan = Callable[[StoredMessage, FlowKey, int, int], Planned]
"""Plans one message's change, given its flow, the time and how far the wall clock is ahead of it in milliseconds;
raises ConflictError or InvalidError."""


def plan_retry(row: StoredMessage, key: FlowKey, now: int, ahead: int) -> Planned:
    """Send it again: at once, with all attempts to spare. An expiry that has passed is dropped.

    Raises:
        ConflictError: it is not in a state from which it could be.
    """
    state = State(row.state)
    if state not in RETRIABLE:
        raise ConflictError(_NO_RETRY[state])
    return _revived(row, key, now, ahead)


def plan_cancel(row: StoredMessage, key: FlowKey, _now: int, _ahead: int) -> Planned:
    """Withdraw it.

    Raises:
        ConflictError: it does not wait.
    """
    to = _legal(row, Event.CANCEL, "cancelled: only a waiting one can be")
    return Planned(row, key, _revision(row, to, Event.CANCEL))


def plan_delete(row: StoredMessage, key: FlowKey, _now: int, _ahead: int) -> Planned:
    """Remove it.

    Raises:
        ConflictError: it is being sent, or its outcome is still open.
    """
    state = State(row.state)
    if state not in DELETABLE:
        raise ConflictError(_refusal(state, "deleted: only one that waits or has ended can be"))
    return Planned(row, key, _revision(row, None, "delete"))


def plan_settle(event: Event) -> Plan:
    """Say what became of an uncertain message."""

    def plan(row: StoredMessage, key: FlowKey, now: int, ahead: int) -> Planned:
        state = State(row.state)
        if state is not State.UNCERTAIN:
            raise ConflictError(_refusal(state, "settled: only an uncertain one can be"))
        if event is Event.REVIVE:
            return _revived(row, key, now, ahead)
        made = _revision(row, after(state, event), event)
        made.reason = "settled by a person"
        return Planned(row, key, made)

    return plan


class Changes(msgspec.Struct, frozen=True):
    """What a patch changes. A `due` of None is now, an `account` of None unpins, `expires_at` None is never."""

    priority: int | UnsetType = UNSET
    due: int | UnsetType | None = UNSET
    account: str | UnsetType | None = UNSET
    expires_at: int | UnsetType | None = UNSET


def read_changes(body: Any, wall: int, under: str = "") -> Changes:
    """A patch from JSON, at the moment that the wall clock shows.

    Raises:
        InvalidError: every problem found, with pointers that begin with `under`.
    """
    draft = Draft(body, CHANGEABLE, under)
    changes = Changes(
        draft.take("priority", checks.check_priority),
        draft.take("scheduled_at", lambda v: None if v is None else checks.check_time(v)),
        draft.take("account", lambda v: None if v is None else checks.check_name(v)),
        draft.take("expires_at", lambda v: None if v is None else _future(v, wall)),
    )
    if not draft.body and not draft.problems:
        draft.problem("", "names nothing to change; there are " + ", ".join(CHANGEABLE))
    draft.check()
    return changes


def _future(value: object, wall: int) -> int:
    moment = checks.check_time(value)
    if moment <= wall:
        raise ValueError("is in the past: the message would never be sent; cancel it instead")
    return moment


def plan_patch(changes: Changes, directory: Directory, number: Callable[[FlowKey], int]) -> Plan:
    """Change a waiting message; `number` gives the number of a flow."""

    def plan(row: StoredMessage, key: FlowKey, now: int, ahead: int) -> Planned:
        state = State(row.state)
        if state not in WAITING:
            raise ConflictError(_refusal(state, "changed: only a waiting one can be"))
        made = _rescheduled(row, state, changes.due, now, ahead)
        if changes.priority is not UNSET:
            made.priority = changes.priority
        if changes.expires_at is not UNSET:
            made.expires_at = changes.expires_at
        lane = key.lane
        if changes.account is not UNSET:
            lane, made.account, made.pool = _placed(row, key, changes.account, directory)
        _check_expiry(made, changes)
        key = FlowKey(lane, key.tenant, key.campaign, key.queue, made.priority, made.account)
        made.flow = number(key)
        return Planned(row, key, made)

    return plan


def _rescheduled(
    row: StoredMessage, state: State, due: int | UnsetType | None, now: int, ahead: int
) -> Revision:
    if due is UNSET:
        return _revision(row, state, "patch")
    if due is None or due <= now + ahead:
        if state is State.PENDING:
            return _revision(row, state, "patch")
        made = _revision(row, after(state, Event.REVIVE), Event.REVIVE)
        made.due_at = made.turn = now
        return made
    made = _revision(row, after(state, Event.RESCHEDULE), Event.RESCHEDULE)
    made.due_at = made.turn = due
    return made


def _check_expiry(made: Revision, changes: Changes) -> None:
    if made.expires_at is None or made.to_state == State.PENDING or made.expires_at > made.due_at:
        return
    if changes.expires_at is not UNSET:
        raise InvalidError([Problem("/expires_at", "is not after the moment the message is scheduled for")])
    raise InvalidError(
        [Problem("/scheduled_at", "is not before the moment the message expires; move that, too")]
    )


def _placed(row: StoredMessage, key: FlowKey, name: str | None, directory: Directory) -> tuple[str, str, str]:
    """The lane, account and pool of a message pinned to another account, or to none."""
    if name is not None:
        spec = directory.find_account(row.tenant, name)
        if spec is None:
            near = checks.suggestion(name, directory.account_names(row.tenant, row.channel))
            raise InvalidError([Problem("/account", f"there is no account '{name}'{near}")])
        if spec.channel != row.channel:
            text = f"'{name}' is an account of channel {spec.channel}, not {row.channel}"
            raise InvalidError([Problem("/account", text)])
        return spec.lane, spec.id, spec.pool
    for lane in (
        key.lane,
        lane_key(row.tenant, row.channel, row.pool),
        lane_key(DEFAULT_TENANT, row.channel, row.pool),
    ):
        if lane in directory.lanes:
            return lane, NOBODY, row.pool
    raise InvalidError(
        [Problem("/account", f"there is no account in pool '{row.pool}'; name one to move it to")]
    )


def _revived(row: StoredMessage, key: FlowKey, now: int, ahead: int) -> Planned:
    made = _revision(row, after(State(row.state), Event.REVIVE), Event.REVIVE)
    made.due_at = made.turn = now
    made.attempts = 0
    if made.expires_at is not None and made.expires_at <= now + ahead:
        made.expires_at = None
    return Planned(row, key, made)


def later(row: StoredMessage, ms: int) -> Revision:
    """The revision that moves a retrying message's moment, because the clock that it was told by was moved."""
    made = _revision(row, State(row.state), "patch")
    made.due_at, made.turn = row.due_at + ms, row.turn + ms
    return made


def _legal(row: StoredMessage, event: Event, words: str) -> State:
    try:
        return after(State(row.state), event)
    except IllegalTransitionError:
        raise ConflictError(_refusal(State(row.state), words)) from None


def _refusal(state: State, words: str) -> str:
    name = "being sent" if state is State.PROCESSING else state.label
    return f"a message that is {name} cannot be {words}"


def _revision(row: StoredMessage, to: State | None, event: str) -> Revision:
    """The revision that changes nothing but the state."""
    return Revision(
        id=row.id,
        number=row.number,
        from_state=row.state,
        to_state=None if to is None else int(to),
        event=str(event),
        due_at=row.due_at,
        turn=row.turn,
        expires_at=row.expires_at,
        priority=row.priority,
        flow=row.flow,
        account=row.account,
        pool=row.pool,
        attempts=row.attempts,
    )
