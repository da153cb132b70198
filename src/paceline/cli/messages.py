"""``paceline messages``: list, show, explain, retry, cancel."""

import re
from typing import Any, Final

from cyclopts import App
from cyclopts.types import PositiveInt

from paceline.cli.filters import EVERYTHING, Filters
from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.server import Server, part
from paceline.cli.show import (
    Column,
    local,
    moment,
    note,
    now,
    plural,
    put,
    put_fields,
    put_json,
    put_table,
    safe,
    spell,
    until,
    width,
    wrapped,
)
from paceline.cli.sure import sure
from paceline.model.errors import InvalidError, Problem

app = App(name="messages", help="List, show, explain, retry and cancel messages.")

_COLUMNS: Final = (
    Column("id", 10, least=13),
    Column("state", 9, least=10),
    Column("to", 8, least=11),
    Column("account", 6),
    Column("queue", 4),
    Column("created", 5, least=8),
    Column("subject", 3),
    Column("error", 7),
)

_MOMENT: Final = re.compile(r" until [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$")


@app.command(name="list", sort_key=0)
def list_(
    *,
    limit: PositiveInt = 50,
    filters: Filters = EVERYTHING,
    common: Common = USUAL,
) -> None:
    """List messages, the newest first.

    Args:
        limit: At most so many.
    """
    with common.open() as server:
        found = list(server.pages("/messages", filters.query(), limit))
    if common.json:
        put_json(found)
    elif not found:
        note("No message matches.")
    else:
        put_table(_COLUMNS, (_row(one) for one in found))


@app.command(sort_key=1)
def show(message: str, /, *, common: Common = USUAL) -> None:
    """Show one message with its attempts.

    Args:
        message: The message's id.
    """
    with common.open() as server:
        one = server.get(f"/messages/{part(message)}")
    if common.json:
        put_json(one)
        return
    listed = one.get("history") or []
    first = ["id", "state", "channel", "queue", "to", "account", "pool", "priority", "subject", "text"]
    times = ["created_at", "scheduled_at", "started_at", "finished_at", "expires_at", "eta"]
    apart = {"history", "pinned", "why", "error", "progress", *first, *times}
    put_fields(
        [
            *((name, one.get(name)) for name in first),
            *((name.removesuffix("_at"), _when(one.get(name))) for name in times),
            ("progress", _progress(one.get("progress"))),
            ("error", _error(one.get("error"))),
            *((name, value) for name, value in one.items() if name not in apart),
        ]
    )
    if listed:
        put()
        put_table(
            (Column("attempt", 9), Column("started", 7), Column("outcome", 8), Column("account"),
             Column("took", 4, right=True), Column("answer", 6)),
            (
                (
                    attempt["number"],
                    local(attempt.get("started_at") or attempt.get("handed_over_at")),
                    attempt.get("outcome"),
                    attempt.get("account"),
                    _took(attempt),
                    " ".join(safe(attempt.get(name)) for name in ("code", "text") if attempt.get(name)),
                )
                for attempt in listed
            ),
        )  # fmt: skip
    if one["state"] in {"pending", "scheduled", "retrying"}:
        note(f"Why it waits: paceline messages why {safe(message)}")


@app.command(sort_key=2)
def why(message: str, /, *, common: Common = USUAL) -> None:
    """Explain why a message waits, and until when at the earliest.

    Args:
        message: The message's id.
    """
    with common.open() as server:
        answer = server.get(f"/messages/{part(message)}/why")
    if common.json:
        put_json(answer)
        return
    for line in why_lines(answer):
        put(line)


def why_lines(answer: dict[str, Any]) -> list[str]:
    """The chain of reasons in words, as wide as standard output is."""
    state = safe(answer.get("state"))
    lines = [f"{safe(answer.get('id'))} is {state}."]
    if state in {"completed", "failed", "cancelled", "expired"}:
        return [*lines, "It has ended: it waits for nothing."]
    room = width() or 10_000
    for number, reason in enumerate(answer.get("reasons") or (), 1):
        text = f"{number}. {reason_words(reason)}"
        if reason.get("until"):
            text += f"; ends {until(reason['until'])}, at {local(reason['until'])}"
        pieces = wrapped(text, room - 3)
        lines += [piece if index == 0 else f"   {piece}" for index, piece in enumerate(pieces)]
    if answer.get("eta"):
        lines.append(f"It leaves {until(answer['eta'])}, at {local(answer['eta'])}, if nothing changes.")
    elif state not in {"processing", "uncertain"}:
        lines.append("When it leaves cannot be told now.")
    return lines


def reason_words(reason: dict[str, Any]) -> str:
    """One reason in words, without the moment, which is told in local time beside it."""
    text = safe(reason.get("text") or reason.get("kind"))
    if reason.get("until"):
        text = _MOMENT.sub("", text)
    if reason.get("ahead") and str(reason["ahead"]) not in text:
        text += f" ({plural(reason['ahead'], 'message')} ahead)"
    return text


@app.command(sort_key=3)
def retry(
    message: str | None = None,
    /,
    *,
    dry_run: Switch = False,
    yes: Switch = False,
    filters: Filters = EVERYTHING,
    common: Common = USUAL,
) -> int:
    """Send again: one message, or all that match the filters.

    Args:
        message: The message's id; leave it out to use filters.
        dry_run: Only tell how many match.
        yes: Do not ask.
    """
    return _act("retry", "sent again", message, filters, common, dry_run=dry_run, yes=yes)


@app.command(sort_key=4)
def cancel(
    message: str | None = None,
    /,
    *,
    dry_run: Switch = False,
    yes: Switch = False,
    filters: Filters = EVERYTHING,
    common: Common = USUAL,
) -> int:
    """Withdraw a waiting message, or all that match the filters.

    Args:
        message: The message's id; leave it out to use filters.
        dry_run: Only tell how many match.
        yes: Do not ask.
    """
    return _act("cancel", "cancelled", message, filters, common, dry_run=dry_run, yes=yes)


def _act(
    action: str,
    done: str,
    message: str | None,
    filters: Filters,
    common: Common,
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    chosen = filters.query()
    if (message is None) == (not chosen):
        raise InvalidError(
            [
                Problem(
                    "",
                    f"name one message by its id, or several by filters: paceline messages {action} --state failed",
                )
            ]
        )
    with common.open() as server:
        if message is not None and not dry_run:
            one = server.post(f"/messages/{part(message)}/{action}")
            if common.json:
                put_json(one)
            else:
                put(f"{safe(message)}  {safe((one or {}).get('state') or done)}")
            return 0
        body = {"action": action, **({"ids": [message]} if message is not None else {"filter": chosen})}
        return _act_on_many(server, body, done, json=common.json, dry_run=dry_run, yes=yes)


def _act_on_many(
    server: Server, body: dict[str, Any], done: str, *, json: bool, dry_run: bool, yes: bool
) -> int:
    trial = server.post("/messages/actions", body, {"dry_run": "true"})
    count, skipped = int(trial["would_change"]), int(trial["skipped"])
    also = f" ({skipped:,} more match, but cannot be)" if skipped else ""
    if dry_run:
        if json:
            put_json(trial)
        else:
            put(f"{plural(count, 'message')} would be {done}{also}.")
        return 0
    if not count:
        note(f"No message that can be {done} matches.")
        return 0
    if not sure(f"{plural(count, 'message')} will be {done}{also}.", yes=yes):
        return 1
    answer = server.post("/messages/actions", {**body, "expect": trial["matched"]})
    if json:
        put_json(answer)
    else:
        put(f"{plural(int(answer['changed']), 'message')} {done}.")
    return 0


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    to = one.get("to")
    return (
        one.get("id"),
        one.get("state"),
        ", ".join(map(str, to)) if isinstance(to, list) else to,
        one.get("account"),
        one.get("queue"),
        local(one.get("created_at")),
        one.get("subject") or one.get("text"),
        _error(one.get("error")),
    )


def _error(error: object) -> str:
    if not isinstance(error, dict):
        return safe(error)
    return " ".join(safe(error[name]) for name in ("code", "text") if error.get(name))


def _progress(progress: object) -> str:
    if not isinstance(progress, dict) or not progress.get("percent"):
        return ""
    return f"{progress['percent']:g} % {safe(progress.get('step'))}".strip()


def _when(text: object) -> str:
    instant = moment(text)
    if instant is None:
        return safe(text)
    return f"{local(text)} ({until(text)})" if instant > now() else local(text)


def _took(attempt: dict[str, Any]) -> str:
    start, end = moment(attempt.get("started_at")), moment(attempt.get("finished_at"))
    return spell((end - start).total_seconds()) if start and end else ""
