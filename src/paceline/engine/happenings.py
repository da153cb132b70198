"""What the engine tells about messages: events for listeners, figures for the statistics."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from paceline.engine.attempts import Ended
from paceline.engine.events import EventBus, StreamEvent
from paceline.engine.figures import Figures
from paceline.model.ids import to_text
from paceline.model.messages import AccountNote, HandedOver, NewMessage
from paceline.model.states import State
from paceline.pacing.circuit import Circuit

_Queued: TypeAlias = tuple[int, int, str, str, str, str, str, str | None]

_ENDED_TYPES = {
    int(State.COMPLETED): "message-sent",
    int(State.RETRYING): "message-retrying",
    int(State.PENDING): "message-retrying",
}

_LONG = 256
"""Characters of content that may stay with a remembered event; no event tells of content."""


class Happenings:
    """Publishes what happened, after it is on disk."""

    def __init__(self, bus: EventBus, figures: Figures) -> None:
        """`figures` counts, `bus` tells."""
        self.bus = bus
        self.figures = figures
        self.when_added: list[Callable[[Sequence[NewMessage]], None]] = []
        self.when_settled: list[Callable[[Sequence[Ended]], None]] = []
        self.when_ended: list[Callable[[int], None]] = []  # without a call: cancelled, expired, by hand

    def added(self, rows: Sequence[NewMessage]) -> None:
        """Messages were taken in."""
        self.figures.added(rows)
        for listener in self.when_added:
            listener(rows)
        # What an event needs and no more: whole rows, kept until thousands came after them, are never in a
        # processor's cache any more when they are freed.
        self.bus.tell(
            [(r.id, r.state, r.queue, r.channel, r.recipient, r.tenant, r.account, r.campaign) for r in rows],
            _queued,
        )

    def handed_over(self, messages: Sequence[HandedOver]) -> None:
        """Messages were given to their accounts."""
        self.bus.tell([_lean(message) for message in messages], _started)

    def settled(self, ended: Sequence[Ended]) -> None:
        """Calls ended."""
        self.figures.settled(ended)
        for listener in tuple(self.when_settled):  # one may be done by this and leave
            listener(ended)
        self.bus.tell([_lean_ended(each) for each in ended], _settled)
        for each in ended:
            if each.verdict.note is not None:
                self._noted(each.message, each.verdict.note)

    def _noted(self, message: HandedOver, note: AccountNote) -> None:
        self.bus.publish("account-status", _note(note), tenant=message.tenant, account=note.account)

    def turned(self, account: str, tenant: str, circuit: Circuit | None) -> None:
        """The circuit of an account opened (again), or closed (None)."""
        self.figures.circuits[account] += circuit is not None
        data: dict[str, Any] = {
            "account": account.partition("/")[2],
            "until_ms": None,
            "stopped": None,
            "state": "ready",
        }
        if circuit is not None:
            data |= {
                "until_ms": circuit.until,
                "state": "unhealthy",
                "reason": "circuit-open",
                "code": circuit.code,
            }
        self.bus.publish("account-status", data, tenant=tenant, account=account)

    def ended(self, id_: int, state: State, tenant: str, queue: str, account: str) -> None:
        """A message ended without a call: cancelled, expired, settled by hand."""
        for listener in self.when_ended:
            listener(id_)
        self.bus.publish(
            "message-failed" if state != State.COMPLETED else "message-sent",
            {"id": to_text(id_), "state": state.label, "queue": queue},
            tenant=tenant, queue=queue, account=account,
        )  # fmt: skip

    def progress(self, message: HandedOver, percent: float, step: str) -> None:
        """A handler said how far it is."""
        self.bus.publish(
            "message-progress", {"id": to_text(message.id), "percent": percent, "step": step},
            tenant=message.tenant, queue=message.queue, account=message.account,
        )  # fmt: skip


def _lean(message: HandedOver) -> HandedOver:
    """The message as events need it: of large ones the bus would else keep thousands in memory."""
    return message if len(message.content) <= _LONG else msgspec.structs.replace(message, content="")


def _lean_ended(each: Ended) -> Ended:
    message = _lean(each.message)
    return each if message is each.message else msgspec.structs.replace(each, message=message)


def _queued(number: int, new: _Queued) -> StreamEvent:
    id_, state, queue, channel, recipient, tenant, account, campaign = new
    data = {
        "id": to_text(id_),
        "state": State(state).label,
        "queue": queue,
        "channel": channel,
        "to": recipient,
    }
    return StreamEvent(number, "message-queued", tenant, queue, account, campaign or "", data)


def _started(number: int, message: HandedOver) -> StreamEvent:
    data = {"id": to_text(message.id), "queue": message.queue, "channel": message.channel,
            "account": message.account.partition("/")[2], "attempt": message.attempts + 1}  # fmt: skip
    return StreamEvent(number, "message-started", message.tenant, message.queue, message.account, "", data)


def _settled(number: int, each: Ended) -> StreamEvent:
    made, message = each.verdict.settlement, each.message
    data = {
        "id": to_text(message.id), "state": State(made.state).label, "ok": made.state == State.COMPLETED,
        "queue": message.queue, "channel": message.channel, "account": message.account.partition("/")[2],
        "attempts": made.attempts, "duration_ms": each.finished - each.started,
        "error": {"class": made.outcome, "code": made.code, "text": made.text} if made.code else None,
    }  # fmt: skip
    return StreamEvent(
        number, _ENDED_TYPES.get(made.state, "message-failed"), message.tenant, message.queue,
        message.account, each.release.flow.key.campaign, data,
    )  # fmt: skip


def _note(note: AccountNote) -> dict[str, Any]:
    return {"account": note.account.partition("/")[2], "until_ms": note.flood_until, "stopped": note.stopped,
            "state": "unhealthy" if note.stopped else "flooded"}  # fmt: skip
