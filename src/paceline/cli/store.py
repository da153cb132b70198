"""``paceline store``: the database as a file."""

import os
from pathlib import Path

from cyclopts import App

from paceline.cli.options import Switch
from paceline.cli.show import note, put, put_json, safe
from paceline.clock import SystemClock
from paceline.config import load

app = App(name="store", help="Check the database, or move it to another schema.")


@app.command(sort_key=0)
def check(*, data: Path | None = None, json: Switch = False) -> None:
    """Check all of the database and tell its schema; a server may be using it.

    Args:
        data: Folder of the store and the keys. Default: that of the settings.
        json: Print JSON for programs instead of text for people.
    """
    from paceline import wiring
    from paceline.engine.backups import facts_view

    files = wiring.make_files(load({"data": data}, os.environ))
    facts = files.check()
    if json:
        put_json({"file": str(files.path), "newest_schema": facts.newest, **facts_view(facts)})
        return
    put(f"{safe(str(files.path))} is whole: schema {facts.version} of {facts.newest}, {facts.messages:,} messages,"
        f" {facts.waiting:,} waiting, {facts.bytes / 1024**2:.1f} MiB")  # fmt: skip


@app.command(sort_key=1)
def migrate(*, to: int | None = None, data: Path | None = None, json: Switch = False) -> None:
    """Bring the database of a stopped server to a schema. The server does it by itself when it starts.

    A copy is made before, in the folder `backups`; the last three of these are kept.

    Args:
        to: The schema, also an older one, for an older version of Paceline. Default: the newest.
        data: Folder of the store and the keys. Default: that of the settings.
        json: Print JSON for programs instead of text for people.
    """
    from paceline import wiring

    files = wiring.make_files(load({"data": data}, os.environ))
    to = files.check().newest if to is None else to
    was, made = files.migrate(to, SystemClock().now())
    if json:
        put_json({"file": str(files.path), "from": was, "to": to, "backup": str(made) if made else None})
        return
    put(f"schema {to}" + (", as before" if was == to else f"; it was {was}"))
    if made is not None:
        note(f"The database as it was before: {safe(str(made))}")
