"""``paceline send``: one message from options, or many from a file or a pipe."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from paceline.cli.messages import reason_words
from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.server import Server
from paceline.cli.show import local, note, plural, put, put_json, safe, until
from paceline.cli.texts import messages_in, pairs, parsed, priority, read_text
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem

_SLICE: Final = 1000
_NEGATIVE: Final = Parameter(negative="")


def send(
    *,
    channel: str | None = None,
    to: Annotated[list[str] | None, _NEGATIVE] = None,
    text: str | None = None,
    subject: str | None = None,
    html: str | None = None,
    payload: str | None = None,
    template: str | None = None,
    var: Annotated[list[str] | None, _NEGATIVE] = None,
    kind: str | None = None,
    account: str | None = None,
    queue: str | None = None,
    priority_: Annotated[str | None, Parameter(name="--priority")] = None,
    delay: str | None = None,
    at: str | None = None,
    expires_at: str | None = None,
    idempotency_key: str | None = None,
    file: Path | None = None,
    wait: Switch = False,
    timeout: str = "60s",
    common: Common = USUAL,
) -> int:
    """Send a message. It is on disk when this answers.

    Args:
        channel: How to send: smtp, webhook, telegram-bot, handler...
        to: The recipient. Several only for e-mail.
        text: The body as plain text. @FILE reads it from a file.
        subject: The subject.
        html: The body as HTML. @FILE reads it from a file.
        payload: A body as JSON, for webhooks and handlers.
        template: Name of a template, in place of a body.
        var: A variable of the template, as name=value.
        kind: The kind of job, for handlers.
        account: Send through this account only.
        queue: The queue. Default: the channel's.
        priority_: 0 to 10, or background, low, normal, high, critical.
        delay: Send after this time: 30s, 5m, 2h.
        at: Send at this moment, for example 2030-01-31T09:00:00+08:00.
        expires_at: Never send after this moment.
        idempotency_key: The same key never sends twice.
        file: Read messages from a file: JSON, or one JSON object a line. - is standard input.
        wait: Wait until it is sent, and tell how it ended.
        timeout: How long to wait at most; then the exit code is 1, and it is sent later all the same.
    """
    body: dict[str, Any] = {
        "channel": channel, "text": _body("text", text), "subject": subject, "html": _body("html", html),
        "template": template, "kind": kind, "account": account, "queue": queue, "priority": priority(priority_),
        "delay": delay, "scheduled_at": at, "expires_at": expires_at, "idempotency_key": idempotency_key,
    }  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    if payload is not None:
        body["payload"] = parsed("payload", payload)
    if var:
        body["variables"] = pairs("var", var)
    if to:
        body["to"] = to[0] if len(to) == 1 else to
    seconds = _seconds(timeout)
    if file is None and not body and not sys.stdin.isatty():
        file = Path("-")
    if file is None:
        if "channel" not in body:
            raise InvalidError([Problem("/channel", "is needed, for example --channel smtp")])
        with common.open() as server:
            return _one(server, body, seconds if wait else None, json=common.json)
    raw = read_text("file", file)
    if not raw.strip():
        where = "standard input" if str(file) == "-" else str(file)
        problem = (
            f"there is nothing to send in {where}; name a message with --channel and --to, or see --help"
        )
        raise InvalidError([Problem("", problem)])
    given = [{**body, **one} if isinstance(one, dict) else one for one in messages_in("file", raw)]
    with common.open() as server:
        if len(given) == 1 and isinstance(given[0], dict):
            return _one(server, given[0], seconds if wait else None, json=common.json)
        return _many(server, given, json=common.json)


def _body(option: str, text: str | None) -> str | None:
    if text is not None and text.startswith("@"):
        return text[1:] if text.startswith("@@") else read_text(option, Path(text[1:]))
    return text


def _seconds(timeout: str) -> float:
    try:
        return parse_duration(timeout, least=1000, most=60_000) / 1000
    except ValueError as error:
        raise InvalidError([Problem("/timeout", f"{timeout!r} {error}")]) from None


def _one(server: Server, body: dict[str, Any], seconds: float | None, *, json: bool) -> int:
    answer = server.post("/messages", body, {"wait": None if seconds is None else f"{seconds:g}"})
    state = answer["state"]
    bad = state in {"failed", "expired", "cancelled", "uncertain"}
    if json:
        put_json(answer)
        return 1 if bad or (seconds is not None and state != "completed") else 0
    put(f"{safe(answer['id'])}  {safe(state)}")
    if answer.get("duplicate"):
        note("The idempotency key was known: this is the first message, and nothing new is sent.")
    if bad:
        told = answer.get("error") or {}
        note(f"{safe(told.get('code'))}: {safe(told.get('text'))}" if told else f"It is {state}.")
        return 1
    if state == "completed":
        return 0
    if seconds is not None:
        note(f"It was not sent within {seconds:g} s; it is sent later all the same.")
    _explain(answer)
    return 0 if seconds is None else 1


def _explain(answer: dict[str, Any]) -> None:
    if answer.get("eta"):
        note(f"It leaves {until(answer['eta'])}, at {local(answer['eta'])}.")
    for reason in answer.get("why") or ():
        note(f"- {reason_words(reason) if isinstance(reason, dict) else safe(reason)}" + _ends(reason))
    note(f"Look at it with: paceline messages why {safe(answer['id'])}")


def _ends(reason: object) -> str:
    until_ = reason.get("until") if isinstance(reason, dict) else None
    return f", ends {until(until_)}" if until_ else ""


def _many(server: Server, given: list[Any], *, json: bool) -> int:
    """Submit in slices, so that a long load shows how far it is and no request is too large."""
    from paceline.cli.progress import progress

    ids: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    batches: list[str] = []
    with (
        progress("Handing over", len(given))
        if len(given) > _SLICE
        else nullcontext(lambda _: None) as advance
    ):
        for start in range(0, len(given), _SLICE):
            answer = server.post("/messages/batch", {"messages": given[start : start + _SLICE]})
            batches.append(answer["batch"])
            for kept, part in ((ids, "accepted"), (rejected, "rejected")):
                kept += [{**one, "index": one["index"] + start} for one in answer[part]]
            if not json:  # at once: a later slice may fail, and these are on disk
                for one in answer["accepted"]:
                    put(safe(one["id"]))
            advance(min(_SLICE, len(given) - start))
    if json:
        put_json({"batches": batches, "accepted": ids, "rejected": rejected})
        return 1 if rejected else 0
    note(
        f"{plural(len(ids), 'message')} taken in" + (f", {len(rejected):,} refused" if rejected else "") + "."
    )
    for one in rejected[:10]:
        told = "; ".join(f"{error.get('field')} {error.get('problem')}" for error in one.get("errors", ()))
        note(f"  item {one['index']}: {safe(told)}")
    if len(rejected) > 10:
        note(f"  and {len(rejected) - 10:,} more; --json shows them all.")
    return 1 if rejected else 0
