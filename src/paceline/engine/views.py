"""Stored rows as the JSON that people see. Internal names and numbers end here."""

from collections.abc import Iterable
from typing import Any

import msgspec

from paceline.model.backoff import parse_backoff, print_backoff
from paceline.model.checks import print_time
from paceline.model.ids import to_text
from paceline.model.states import State
from paceline.pacing.settle import WITHHELD
from paceline.stores.base import Attempt, StoredMessage

_decode = msgspec.json.Decoder().decode

_CLASSES = {
    "RateLimited": "rate-limited",
    "Temporary": "temporary",
    "Permanent": "permanent",
    "Unknown": "uncertain",
    "AccountStopped": "account-stopped",
    "Moved": "moved",
}


def account_name(account_id: str) -> str | None:
    """The name people know an account by."""
    return account_id.partition("/")[2] or None


def time_or_none(ms: int | None) -> str | None:
    """A moment as text, where there is one."""
    return None if ms is None else print_time(ms)


def message_view(
    row: StoredMessage, progress: dict[str, Any] | None = None, *, body: bool = True
) -> dict[str, Any]:
    """A message as the HTTP contract shows it, without what is computed at the moment (eta, why)."""
    content = _decode(row.content)
    recipients = content.pop("to", None)
    state = State(row.state)
    view: dict[str, Any] = {
        "id": to_text(row.id),
        "tenant": row.tenant,
        "state": state.label,
        "channel": row.channel,
        "to": recipients if isinstance(recipients, list) else (row.recipient or None),
        "queue": row.queue,
        "kind": row.kind,
        "account": account_name(row.sender or row.account),
        "pinned": bool(row.account),
        "pool": row.pool,
        "priority": row.priority,
        "campaign": row.campaign,
        "batch": to_text(row.batch) if row.batch else None,
        "group": row.group,
        "source": row.source,
        "metadata": _decode(row.metadata) if row.metadata else {},
        "idempotency_key": row.idempotency_key,
        "callback_url": row.callback_url,
        "attempts": row.attempts,
        "max_attempts": row.max_attempts,
        "timeout": row.timeout_ms / 1000,
        "backoff": print_backoff(parse_backoff(_decode(row.backoff))) if row.backoff else None,
        "created_at": print_time(row.created_at),
        "scheduled_at": print_time(row.due_at),
        "started_at": time_or_none(row.started_at),
        "finished_at": time_or_none(row.finished_at),
        "expires_at": time_or_none(row.expires_at),
        "progress": progress or {"percent": 100 if state is State.COMPLETED else 0, "step": ""},
        "result": _result(row),
        "error": error_view(row.outcome, row.code, row.text),
        "trace_id": row.trace_id,
    }
    if body:
        view.update({name: value for name, value in content.items() if name not in view})
    else:
        view["subject"] = content.get("subject")
    return view


def _result(row: StoredMessage) -> Any:
    if row.state != State.COMPLETED:
        return None
    return {"reference": row.reference, "value": _decode(row.result) if row.result else None}


def error_view(outcome: str | None, code: str | None, text: str | None) -> dict[str, Any] | None:
    """The class, code and words of an outcome that was no success."""
    if outcome in (None, "Accepted", "confirm", WITHHELD):
        return None
    return {"class": _CLASSES.get(outcome, outcome), "code": code, "text": text}


def attempt_view(row: Attempt) -> dict[str, Any]:
    """One journal line."""
    return {
        "number": row.number,
        "account": account_name(row.account),
        "handed_over_at": print_time(row.handed_over),
        "started_at": time_or_none(row.started),
        "finished_at": time_or_none(row.finished),
        "outcome": _CLASSES.get(row.outcome or "", (row.outcome or "under way").lower()),
        "code": row.code,
        "text": row.text,
        "reference": row.reference,
    }


def trace_view(
    row: StoredMessage, attempts: Iterable[Attempt], callback: StoredMessage | None
) -> dict[str, Any]:
    """The way of a message: queue, process and send for each hand-over, and its call-back."""
    nodes: list[dict[str, Any]] = []
    waiting = max(row.created_at, 0)
    for attempt in attempts:
        if not attempt.account or attempt.outcome == WITHHELD:
            continue
        started = attempt.started if attempt.started is not None else attempt.handed_over
        nodes.append(_node("queue", waiting, attempt.handed_over, ok=True))
        nodes.append(_node("process", attempt.handed_over, started, ok=True))
        nodes.append(_node("send", started, attempt.finished, ok=attempt.outcome in (None, "Accepted")))
        waiting = attempt.finished or started
    if not nodes:
        nodes.append(_node("queue", waiting, row.finished_at, ok=row.state != State.EXPIRED))
    if callback is not None:
        ok = callback.state == State.COMPLETED
        nodes.append(_node("callback", callback.created_at, callback.finished_at, ok=ok))
    sends = [node for node in nodes if node["name"] == "send"]
    end = row.finished_at
    return {
        "trace_id": row.trace_id,
        "nodes": nodes,
        "statistics": {
            "total_duration_ms": None if end is None else end - row.created_at,
            "success_rate": sum(node["ok"] for node in sends) / len(sends) if sends else None,
        },
    }


def _node(name: str, start: int, end: int | None, *, ok: bool) -> dict[str, Any]:
    return {
        "name": name,
        "start": print_time(start),
        "duration_ms": None if end is None else max(0, end - start),
        "ok": ok,
    }
