"""``paceline test-queue``: does it send, and how long does it take?"""

from typing import Any

from cyclopts.types import PositiveInt

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.server import Server, part
from paceline.cli.show import Column, moment, note, plural, put_json, put_table, spell
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem

_ENDED = frozenset({"completed", "failed", "cancelled", "expired", "uncertain"})


def trial(
    *,
    channel: str,
    to: str | None = None,
    account: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    kind: str | None = None,
    text: str = "A test message from Paceline.",
    count: PositiveInt = 1,
    wait: Switch = False,
    timeout: str = "60s",
    common: Common = USUAL,
) -> int:
    """Send test messages the way real ones go, and tell what became of each.

    Args:
        channel: How to send: smtp, webhook, telegram-bot, handler...
        to: The recipient.
        account: Through this account.
        queue: In this queue. Default: the channel's.
        group: With this group label, for example a chat room.
        kind: With this kind, for handlers.
        text: What it says.
        count: How many.
        wait: Wait until they are sent.
        timeout: How long to wait at most.
    """
    try:
        patience = parse_duration(timeout, least=1000) / 1000
    except ValueError as error:
        raise InvalidError([Problem("/timeout", f"{timeout!r} {error}")]) from None
    named = {"to": to, "account": account, "queue": queue, "group": group, "kind": kind}
    body: dict[str, Any] = {"channel": channel, "source": "test-queue"}
    body.update({key: value for key, value in named.items() if value is not None})
    body.update({"payload": {"text": text}} if channel == "handler" else {"text": text})
    if channel == "smtp":
        body["subject"] = "Test"
    with common.open() as server:
        answer = server.post("/messages/batch", {"messages": [body] * count})
        if answer["rejected"]:
            wrong = answer["rejected"][0]["errors"]
            raise InvalidError([Problem(one["field"], one["problem"]) for one in wrong])
        ids = [one["id"] for one in answer["accepted"]]
        found = _ended(server, ids, patience) if wait else [server.get(f"/messages/{part(i)}") for i in ids]
    if common.json:
        put_json(found)
    else:
        columns = (Column("id", 10, least=13), Column("state", 9), Column("took", 8, right=True),
                   Column("account", 4), Column("error", 6))  # fmt: skip
        put_table(columns, (_row(one) for one in found))
        _tell(found, wait=wait, patience=patience)
    return 1 if wait and any(one["state"] != "completed" for one in found) else 0


def _ended(server: Server, ids: list[str], patience: float) -> list[dict[str, Any]]:
    """Every message once all have ended or patience has; asks a little less often each time."""
    from threading import Event

    from paceline.cli.progress import progress
    from paceline.clock import SystemClock

    clock, pause, open_ids = SystemClock(), 0.05, list(ids)
    end = clock.now() + round(patience * 1000)
    found: dict[str, dict[str, Any]] = {}
    with progress("Sending", len(ids)) as advance:
        while open_ids:
            for one in list(open_ids):
                found[one] = server.get(f"/messages/{part(one)}")
                if found[one]["state"] in _ENDED:
                    open_ids.remove(one)
                    advance(1)
            if not open_ids or clock.now() >= end:
                break
            Event().wait(min(pause, clock.until(end)))
            pause = min(1.0, pause * 1.5)
    return [found[one] for one in ids]


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    start, end = moment(one.get("created_at")), moment(one.get("finished_at"))
    error = one.get("error") or {}
    text = " ".join(str(error[key]) for key in ("code", "text") if error.get(key))
    return (
        one["id"],
        one["state"],
        spell((end - start).total_seconds()) if start and end else "",
        one.get("account"),
        text,
    )


def _tell(found: list[dict[str, Any]], *, wait: bool, patience: float) -> None:
    done = sum(one["state"] == "completed" for one in found)
    waiting = next((one for one in found if one["state"] not in _ENDED), None)
    if done == len(found):
        note(f"{plural(done, 'message')} sent.")
    elif waiting is not None:
        after = f" after {spell(patience)}" if wait else ""
        note(
            f"{done} of {plural(len(found), 'message')} sent{after}. Why: paceline messages why {waiting['id']}"
        )
    else:
        note(f"{done} of {plural(len(found), 'message')} sent.")
