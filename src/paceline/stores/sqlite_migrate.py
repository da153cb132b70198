"""The schema's versions: whose file this is, and the way from one version to another, up and down.

Each step is a transaction of its own that also writes the version, so that a process that dies in the middle
leaves the old version or the new one.
"""

from collections.abc import Iterator
from pathlib import Path

import apsw

from paceline.model.errors import InvalidError, Problem, SchemaError
from paceline.stores.statements import load_migrations

APPLICATION_ID = 0x50434C4E  # "PCLN", so that `file` and we can tell whose database it is


def newest_version() -> int:
    """The version that this program writes."""
    return len(load_migrations("sqlite"))


def version_of(connection: apsw.Connection) -> int:
    """The version of a database; 0 for an empty file."""
    version: int = connection.pragma("user_version")
    return version


def check_ours(connection: apsw.Connection, path: Path) -> None:
    """Look before anything is written: a file of somebody else's must stay as it is.

    Raises:
        SchemaError: not a Paceline store, or one of a newer version.
    """
    application, version = connection.pragma("application_id"), version_of(connection)
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application != APPLICATION_ID and (application or version or tables):
        raise SchemaError(f"{path} is a database of another program; name another file")
    if version > newest_version():
        raise SchemaError(
            f"{path} was written by a newer Paceline (schema {version}, this one knows {newest_version()}); "
            "use that version, or a copy from before"
        )


def migrate(connection: apsw.Connection, to: int) -> None:
    """Bring the schema to a version, up or down, each step in a transaction of its own."""
    for script, version in _steps(version_of(connection), to):
        connection.execute("BEGIN EXCLUSIVE")
        try:
            connection.execute(script)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", version)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check_version(to: int) -> None:
    """Refuse a version that there is no way to.

    Raises:
        InvalidError: it is not one of those that this program knows.
    """
    if not 1 <= to <= newest_version():
        known = "1" if newest_version() == 1 else f"1 to {newest_version()}"
        raise InvalidError([Problem("/to", f"there is no schema {to}; this program knows {known}")])


def _steps(version: int, to: int) -> Iterator[tuple[str, int]]:
    """The scripts to run, each with the version it leads to."""
    known = load_migrations("sqlite")
    yield from ((each.script, each.version) for each in known[version:to])
    for each in reversed(known[to:version]):
        yield each.down, each.version - 1
