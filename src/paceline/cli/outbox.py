"""``paceline outbox``: messages that an application wrote into its own database, in its own transactions."""

import asyncio
import json as json_
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from paceline.cli.options import Switch
from paceline.cli.show import Column, local, note, plural, put, put_json, put_table, safe
from paceline.config import load
from paceline.model.checks import print_time
from paceline.model.errors import InvalidError, Problem

if TYPE_CHECKING:
    from paceline.stores.outbox import Listed, OutboxDesk, OutboxPlace

app = App(name="outbox", help="Enqueue from an application's own transactions.")

Json = Annotated[Switch, Parameter(help="Print JSON for programs instead of text for people.")]
_URL = "URL of the application's database. Default: the only one that the settings (PACELINE_OUTBOX) name."


@app.command(sort_key=0)
def create(
    url: Annotated[str | None, Parameter(help=_URL)] = None, /, *, bell: bool = True, json: Json = False
) -> None:
    """Make the table in an application's database. One that is there is left as it is.

    Args:
        bell: In PostgreSQL a trigger wakes the relay with each commit. Without it the relay looks every 5 seconds.
    """
    place, desk = _open(url)
    asyncio.run(desk.create(bell=bell))
    if json:
        put_json({"outbox": place.name})
        return
    put(f"the outbox is in {safe(place.name)}")
    note(f"Let the server relay it: paceline up --outbox {safe(place.name)}   (or PACELINE_OUTBOX)")


@app.command(sort_key=1)
def ddl(dialect: Literal["postgresql", "sqlite"], /, *, schema: str | None = None, bell: bool = True) -> None:
    """Print the statements that make the table, for the application's own migrations.

    Args:
        dialect: postgresql or sqlite.
        schema: Where to, in PostgreSQL. Default: where the connection makes its tables.
        bell: With the trigger that wakes the relay.
    """
    from paceline.stores.outbox import ddl as statements

    put(statements(dialect, schema=schema, bell=bell))


@app.command(name="list", sort_key=2)
def list_(
    url: Annotated[str | None, Parameter(help=_URL)] = None,
    /,
    *,
    refused: Switch = False,
    limit: int = 100,
    json: Json = False,
) -> None:
    """Show what lies in an outbox, in order: what the relay has not taken yet, and what it refused.

    Args:
        refused: Only what was refused.
        limit: Rows at most.
    """
    _place, desk = _open(url)
    facts, rows = asyncio.run(_look(desk, refused=refused, most=limit))
    if json:
        put_json({"waiting": facts.waiting, "refused": facts.refused, "rows": [_view(row) for row in rows]})
        return
    put_table(
        (Column("key"), Column("written"), Column("message"), Column("refused because")),
        [(row.key, local(print_time(row.written_at)), _gist(row.message), row.error or "") for row in rows],
    )
    note(f"{plural(facts.waiting, 'row')} waiting, {facts.refused:,} refused.")


@app.command(sort_key=3)
def retry(
    url: Annotated[str | None, Parameter(help=_URL)] = None,
    /,
    *,
    key: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    json: Json = False,
) -> None:
    """Let refused rows be tried again, after what was wrong is mended.

    Args:
        key: The row's key; may be given again. Default: all refused rows.
    """
    _place, desk = _open(url)
    _told("tried again", asyncio.run(desk.retry(key or [])), json)


@app.command(sort_key=4)
def discard(
    url: Annotated[str | None, Parameter(help=_URL)] = None,
    /,
    *,
    key: Annotated[list[str], Parameter(negative="", consume_multiple=False)],
    json: Json = False,
) -> None:
    """Delete refused rows: their messages are never sent.

    Args:
        key: The row's key; may be given again.
    """
    _place, desk = _open(url)
    _told("deleted", asyncio.run(desk.discard(key)), json)


def _open(url: str | None) -> "tuple[OutboxPlace, OutboxDesk]":
    from paceline import wiring
    from paceline.stores.outbox import parse_outbox

    if url is None:
        known: Sequence[str] = load({}, os.environ).outbox
        if len(known) != 1:
            text = "names no outbox" if not known else "names several outboxes"
            raise InvalidError([Problem("", f"PACELINE_OUTBOX {text}: give the URL of one")])
        url = known[0]
    place = parse_outbox(url)
    return place, wiring.make_outbox(place)[1]


async def _look(desk: "OutboxDesk", *, refused: bool, most: int) -> Any:
    return await desk.facts(), await desk.rows(refused=refused, most=max(1, most))


def _gist(message: str) -> str:
    """What it is about, in a few words."""
    try:
        said = json_.loads(message)
        return f"{said['channel']} to {said['to']}"
    except (ValueError, LookupError, TypeError):
        return message[:60]


def _view(row: "Listed") -> dict[str, Any]:
    return {
        "key": row.key,
        "position": row.position,
        "written_at": print_time(row.written_at),
        "bytes": row.size,
        "message": row.message,
        "refused_at": None if row.refused_at is None else print_time(row.refused_at),
        "error": row.error,
    }


def _told(what: str, count: int, json: bool) -> None:
    if json:
        put_json({"rows": count})
    else:
        put(f"{plural(count, 'row')} {what}")
