"""Guards of copies, schema and purge, taken out one at a time: each break has to make its experiment fail.

    python -m bench.faults.breaks_ops BREAK python -m paceline.cli.main up ...

runs that command in this process with the break in it.
"""

import sys
from collections.abc import Callable

import apsw
import msgspec

from paceline.cli import main as cli
from paceline.engine import holds, installation
from paceline.engine.holds import Holds
from paceline.model.states import State
from paceline.stores import sqlite, sqlite_migrate, sqlite_schema
from paceline.stores.statements import load_statements


def _no_hold() -> None:
    """A copy knows that it is one and sends all the same."""
    Holds._close = lambda _self, _hold: None  # type: ignore[method-assign]  # that is the break
    Holds._open = lambda _self: None  # type: ignore[method-assign]  # as above


def _no_doubt() -> None:
    """A database does not notice that it was copied or put back."""
    installation._doubt = lambda _known, _here, _seen, _now: None


def _cancel_nothing() -> None:
    """A release forgets what was to be cancelled."""
    holds._due_before = lambda _moment: holds._due_before_never  # type: ignore[attr-defined]  # made below
    holds._due_before_never = _refuse  # type: ignore[attr-defined]  # as above


def _refuse(*_: object) -> None:
    raise holds.ConflictError("not this one")


def _no_transaction() -> None:
    """A migration's statements are committed one by one."""

    def migrate(connection: apsw.Connection, to: int) -> None:
        for script, version in sqlite_migrate._steps(sqlite_migrate.version_of(connection), to):
            connection.execute(script)
            connection.pragma("application_id", sqlite_migrate.APPLICATION_ID)
            connection.pragma("user_version", version)

    sqlite_schema.migrate = migrate
    sqlite_migrate.migrate = migrate


def _purge_everything() -> None:
    """A purge takes what has not ended as well."""
    sqlite.ENDED = frozenset(State)  # type: ignore[misc, attr-defined]  # that is the break
    statements = load_statements("sqlite")
    clean = statements["make_clean"]
    sql = clean.sql.replace("entry.state IN (5, 6, 7, 8)", "entry.state IN (1, 2, 3, 4, 5, 6, 7, 8, 9)")
    statements["make_clean"] = msgspec.structs.replace(clean, sql=sql)


BREAKS: dict[str, Callable[[], None]] = {
    "no-hold": _no_hold,
    "no-doubt": _no_doubt,
    "cancel-nothing": _cancel_nothing,
    "no-transaction": _no_transaction,
    "purge-everything": _purge_everything,
}


def launcher(name: str) -> tuple[str, ...]:
    """What to put before a command so that it runs with the break; nothing for no break."""
    return (sys.executable, "-m", "bench.faults.breaks_ops", name) if name else ()


if __name__ == "__main__":
    BREAKS[sys.argv[1]]()
    sys.exit(cli.run(sys.argv[sys.argv.index("paceline.cli.main") + 1 :]))
