"""What the engine tells about messages: events for listeners, figures for the statistics."""

from collections.abc import Callable, Sequence
from typing import Any

from paceline.engine.attempts import Ended
from paceline.engine.events import EventBus
from paceline.engine.figures import Figures
from paceline.model.ids import to_text
from paceline.model.messages import AccountNote, HandedOver, NewMessage
from paceline.model.states import State

_ENDED_TYPES = {
    State.COMPLETED: "message-sent",
    State.RETRYING: "message-retrying",
    State.PENDING: "message-retrying",
}


class Happenings:
    """Publishes what happened, after it is on disk."""

    def __init__(self, bus: EventBus, figures: Figures) -> None:
        """`figures` counts, `bus` tells."""
        self.bus = bus
        self.figures = figures
        self.watch: Callable[[Sequence[Ended]], None] | None = (
            None  # told of each batch, while somebody cares
        )

    def added(self, row: NewMessage) -> None:
        """A message was taken in."""
        self.figures.added(row)
        self.bus.publish(
            "message-queued", row, tenant=row.tenant, queue=row.queue, account=row.account,
            campaign=row.campaign or "", render=_queued,
        )  # fmt: skip

    def handed_over(self, messages: Sequence[HandedOver]) -> None:
        """Messages were given to their accounts."""
        for message in messages:
            self.bus.publish(
                "message-started", message, tenant=message.tenant, queue=message.queue, account=message.account,
                render=_started,
            )  # fmt: skip

    def settled(self, ended: Sequence[Ended]) -> None:
        """Calls ended."""
        if self.watch is not None:
            self.watch(ended)
        for each in ended:
            self.figures.settled(each)
            message = each.message
            self.bus.publish(
                _ENDED_TYPES.get(State(each.verdict.settlement.state), "message-failed"), each,
                tenant=message.tenant, queue=message.queue, account=message.account,
                campaign=each.release.flow.key.campaign, render=_settled,
            )  # fmt: skip
            if each.verdict.note is not None:
                self._noted(message, each.verdict.note)

    def _noted(self, message: HandedOver, note: AccountNote) -> None:
        self.bus.publish("account-status", note, tenant=message.tenant, account=note.account, render=_note)

    def ended(self, id_: int, state: State, tenant: str, queue: str, account: str) -> None:
        """A message ended without a call: cancelled, expired, settled by hand."""
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


def _queued(row: NewMessage) -> dict[str, Any]:
    return {"id": to_text(row.id), "state": State(row.state).label, "queue": row.queue, "channel": row.channel,
            "to": row.recipient}  # fmt: skip


def _started(message: HandedOver) -> dict[str, Any]:
    return {"id": to_text(message.id), "queue": message.queue, "channel": message.channel,
            "account": message.account.partition("/")[2], "attempt": message.attempts + 1}  # fmt: skip


def _settled(each: Ended) -> dict[str, Any]:
    made, message = each.verdict.settlement, each.message
    return {
        "id": to_text(message.id), "state": State(made.state).label, "ok": made.state == State.COMPLETED,
        "queue": message.queue, "channel": message.channel, "account": message.account.partition("/")[2],
        "attempts": made.attempts, "duration_ms": each.finished - each.started,
        "error": {"class": made.outcome, "code": made.code, "text": made.text} if made.code else None,
    }  # fmt: skip


def _note(note: AccountNote) -> dict[str, Any]:
    return {"account": note.account.partition("/")[2], "until_ms": note.flood_until, "stopped": note.stopped,
            "state": "unhealthy" if note.stopped else "flooded"}  # fmt: skip
