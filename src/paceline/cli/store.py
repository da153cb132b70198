"""``paceline store``: the database as a file."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cyclopts import App

from paceline.cli.options import Switch
from paceline.cli.show import note, plural, put, put_json, safe
from paceline.clock import SystemClock
from paceline.config import load

app = App(name="store", help="Check the database, move it to another schema, or to another store.")


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


@app.command(sort_key=2)
def copy(source: str, target: str, /, *, keep: Switch = False, json: Switch = False) -> None:
    """Move everything to another store: from a SQLite data folder to PostgreSQL, or back. No server may run on either.

    The target has to be empty. Everything is read back and audited before the target can be started; from then on the
    source refuses to. Cut off, the target is unusable until the same command was run to its end.

    Args:
        source: A data folder, or a URL such as postgresql://user@host/database?schema=NAME.
        target: The same, for a store that is empty or not there yet.
        keep: The source goes on to be the one that sends: the target is a copy, and starts on hold.
        json: Print JSON for programs instead of text for people.
    """
    from paceline import wiring
    from paceline.cli.progress import progress
    from paceline.engine.store_copy import StoreCopy

    begun, ended = wiring.make_moving(source), wiring.make_moving(target)
    order = StoreCopy(begun, ended, keep=bool(keep), now=SystemClock().now())
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[int], None]:
            return stack.enter_context(progress("Copying and reading back", total))

        done = asyncio.run(order.run(begin, lambda: _broken(target), lambda: _broken(source)))
    if json:
        put_json({"from": begun.name, "to": ended.name, "kept": bool(keep), "rows": done.rows,
                  "replaced": done.replaced, "broken": list(done.broken)})  # fmt: skip
        return
    put(f"{plural(done.rows['message'], 'message')} and {plural(done.rows['attempt'], 'journal line')} are in"
        f" {safe(ended.name)}, read back and audited")  # fmt: skip
    if done.replaced:
        note(
            f"{plural(done.replaced, 'row')} had a NUL character in a provider's words; U+FFFD stands for it now."
        )
    if done.broken:
        note(
            f"The audit finds the same broken there as before: {', '.join(done.broken)}. See: paceline audit"
        )
    if keep:
        note("It starts on hold and sends nothing. The source goes on as before.")
    else:
        note(f"{safe(begun.name)} is marked as moved and does not start any more.")
    note(
        "The keys are not in a store: secret.key and admin.key have to be in the data folder (--data) of the server"
    )
    note("that is started on it. Without that secret.key the secrets of accounts cannot be read.")


async def _broken(where: str) -> Sequence[str]:
    """The promises that an audit finds broken."""
    from paceline import wiring
    from paceline.config import Settings
    from paceline.engine.audit import Audit, Order

    moving = wiring.make_moving(where)
    url = where if "://" in where else f"sqlite:///{moving.name}"
    reader = wiring.make_journal_reader(Settings(store=url), None)
    await reader.open()
    try:
        report = await Audit(reader, Order(wiring.repeatable_channels())).run(
            lambda _total: lambda _count: None
        )
    finally:
        await reader.close()
    return [check.name for check in report.checks if check.broken]
