"""``paceline queues``: counts, pauses, and making room."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.server import Server, part
from paceline.cli.show import Column, note, plural, put, put_json, put_table, safe
from paceline.cli.sure import sure
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem

app = App(name="queues", help="List, pause, resume, empty and clean queues.")

_COLUMNS: Final = (
    Column("queue", 10, least=12),
    Column("state", 9, least=6),
    Column("waiting", 9, right=True, least=7),
    Column("active", 7, right=True, least=6),
    Column("delayed", 6, right=True, least=7),
    Column("paused", 4, right=True, least=6),
    Column("completed", 5, right=True, least=9),
    Column("failed", 8, right=True, least=6),
)


@app.command(name="list", sort_key=0)
def list_(*, all_: Annotated[Switch, Parameter(name="--all")] = False, common: Common = USUAL) -> None:
    """List the queues with their counts.

    Args:
        all_: Also those that have never had a message.
    """
    with common.open() as server:
        status = server.get("/queues/status")
    if common.json:
        put_json(status)
        return
    rows = list(rows_of(status, every=all_))
    if rows:
        put_table(_COLUMNS, rows)
    else:
        note("No queue has had a message yet; --all lists them.")


def rows_of(status: dict[str, Any], *, every: bool = False) -> list[tuple[object, ...]]:
    """The queues as cells of the table, those without any message only when `every` is asked for."""
    names = ("waiting", "active", "delayed", "paused", "completed", "failed")
    rows = []
    for queue in status["queues"]:
        counts = [int(queue["counts"].get(name, 0)) for name in names]
        if every or queue.get("paused") or any(counts):
            state = "paused" if queue.get("paused") else ""
            rows.append((queue["name"], state, *(f"{count:,}" for count in counts)))
    return rows


COLUMNS = _COLUMNS


@app.command(sort_key=1)
def pause(name: str, /, *, common: Common = USUAL) -> None:
    """Send nothing of a queue until it is resumed; it goes on taking messages in.

    Args:
        name: The queue's name.
    """
    _do(name, "pause", "paused", common)


@app.command(sort_key=2)
def resume(name: str, /, *, common: Common = USUAL) -> None:
    """Go on after a pause.

    Args:
        name: The queue's name.
    """
    _do(name, "resume", "resumed", common)


@app.command(sort_key=3)
def empty(
    name: str,
    /,
    *,
    yes: Switch = False,
    common: Common = USUAL,
) -> int:
    """Remove every waiting message of a queue. They are not sent.

    Args:
        name: The queue's name.
        yes: Do not ask.
    """
    with common.open() as server:
        count = _waiting(server, name)
        if not sure(f"{plural(count, 'waiting message')} of the queue '{name}' will be removed.", yes=yes):
            return 1
        return _removed(server.call("DELETE", f"/queues/{part(name)}/empty"), json=common.json)


@app.command(sort_key=4)
def clean(
    name: str,
    /,
    *,
    older_than: str = "24h",
    state: Literal["completed", "failed"] = "completed",
    common: Common = USUAL,
) -> int:
    """Remove ended messages of a queue that are older than a while.

    Args:
        name: The queue's name.
        older_than: Keep what ended within this time: 30m, 24h, 7d.
        state: Which ones.
    """
    try:
        grace = parse_duration(older_than)
    except ValueError as error:
        raise InvalidError([Problem("/older-than", f"{older_than!r} {error}")]) from None
    with common.open() as server:
        answer = server.post(f"/queues/{part(name)}/clean", {"grace": grace, "type": state})
    return _removed(answer, json=common.json)


def _waiting(server: Server, name: str) -> int:
    for queue in server.get("/queues/status")["queues"]:
        if queue["name"] == name:
            counts = queue["counts"]
            return sum(int(counts.get(kind, 0)) for kind in ("waiting", "delayed", "paused"))
    return 0


def _removed(answer: dict[str, Any] | None, *, json: bool) -> int:
    if json:
        put_json(answer)
    else:
        put(f"{plural(int((answer or {}).get('removed', 0)), 'message')} removed.")
    return 0


def _do(name: str, action: str, done: str, common: Common) -> None:
    with common.open() as server:
        answer = server.post(f"/queues/{part(name)}/{action}")
    if common.json:
        put_json(answer or {"name": name, "state": done})
    else:
        put(f"{safe(name)}  {done}")
