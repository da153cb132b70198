"""``paceline hold`` and ``paceline release``: nothing is sent, and then it is."""

from typing import Annotated, Any

from cyclopts import Parameter

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.show import local, note, plural, put, put_json, safe, say
from paceline.cli.sure import sure


def hold(*, reason: str | None = None, common: Common = USUAL) -> None:
    """Send nothing more until it is released, over restarts as well. Calls in flight finish.

    Args:
        reason: What people are told who ask why.
    """
    with common.open() as server:
        answer = server.post("/hold", {} if reason is None else {"reason": reason})
    if common.json:
        put_json(answer)
        return
    put(f"on hold since {local(answer['since'])}: {safe(answer['text'])}")
    note("Send again with: paceline release")


def release(
    *,
    cancel_before: Annotated[str | None, Parameter(name="--cancel-before")] = None,
    dry_run: Switch = False,
    yes: Switch = False,
    common: Common = USUAL,
) -> int:
    """Send again after a restore, a move or a hold.

    After a restore, what waits here may have been sent by the original since the copy was made. Give the moment
    until which the original ran, and what was due before it is cancelled instead of sent.

    Args:
        cancel_before: Cancel what was due before this moment, like 2030-01-31T09:00:00+08:00.
        dry_run: Only tell how many wait, and how many would be cancelled.
        yes: Do not ask.
    """
    body: dict[str, Any] = {} if cancel_before is None else {"cancel_before": cancel_before}
    with common.open() as server:
        would = server.post("/hold/release", body, {"dry_run": "true"})
        if dry_run:
            return _told(would, common)
        if not sure(_what(would, server.get("/hold")), yes=yes):
            return 1
        done = server.post("/hold/release", body)
    if common.json:
        put_json(done)
    else:
        put(f"released; {plural(done['cancelled'], 'message')} cancelled")
    return 0


def _told(would: dict[str, Any], common: Common) -> int:
    if common.json:
        put_json(would)
    else:
        say(
            f"{plural(would['waiting'], 'message')} waiting, {would['would_cancel']:,} of them would be cancelled"
        )
    return 0


def _what(would: dict[str, Any], hold: dict[str, Any]) -> str:
    goes = would["waiting"] - would["would_cancel"]
    what = f"On hold because {hold['text']}. " if hold["held"] else ""
    what += f"{plural(goes, 'message')} will be sent as soon as due"
    return what + (f", {would['would_cancel']:,} cancelled." if would["would_cancel"] else ".")
