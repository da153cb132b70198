"""A store that nobody serves, or that another process does: copied, checked, put back, moved to another schema."""

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import apsw

from paceline.model.errors import ConflictError, SchemaError, UnavailableError
from paceline.stores.base import CopyFacts
from paceline.stores.sqlite_copy import Mark, copy_database, drop, facts_of, finish, flush, fresh_part, name
from paceline.stores.sqlite_migrate import check_ours, check_version, migrate, version_of
from paceline.stores.sqlite_schema import Ownership, translate

KEPT_BEFORE = 3
"""Copies made before a migration that are kept."""
_BEFORE = "before-schema-"


class SqliteFiles:
    """The files of one store."""

    def __init__(self, path: str | Path, mark: Mark) -> None:
        """`mark` makes a copy know that it is one."""
        self.path = Path(path)
        self._mark = mark

    def copy(self, target: Path, now: int) -> CopyFacts:
        """Copy the database, in use or not, to a new file.

        Raises:
            ConflictError, SchemaError, UnavailableError: as they say.
        """
        return copy_database(self.path, target, self._mark, now)

    def check(self) -> CopyFacts:
        """Look at all of it; nothing is changed.

        Raises:
            SchemaError, UnavailableError: as they say.
        """
        return facts_of(self.path)

    def restore(self, source: Path, now: int, *, replace: bool) -> tuple[CopyFacts, Path | None]:
        """Put a copy here, checked and marked, so that it starts on hold.

        Answers what is in it, and where a database that was here before is now (only with `replace`).

        Raises:
            OccupiedError: a server runs here.
            ConflictError: there is a database here and `replace` is not set.
            SchemaError: the source is none of ours, or of a newer version.
            UnavailableError: it is damaged, or cannot be read or written.
        """
        ownership = Ownership(self.path)
        try:
            if not replace and self._is_here():
                raise ConflictError(f"{self.path} exists: name an empty folder, or say --replace")
            part = fresh_part(self.path)
            try:
                _fill(source, part)
                facts = finish(part, self._mark, now)
                aside = self._set_aside(now)
                name(part, self.path)
            finally:
                drop(part)
        finally:
            ownership.release()
        return facts, aside

    def migrate(self, to: int, now: int) -> tuple[int, Path | None]:
        """Bring the schema to a version; answers the one it had, and the copy that was made before.

        Raises:
            InvalidError: there is no such version.
            OccupiedError, SchemaError, UnavailableError: as they say.
        """
        check_version(to)
        if not self.path.is_file():
            raise SchemaError(f"there is no database {self.path}")
        ownership = Ownership(self.path)
        try:
            connection = apsw.Connection(str(self.path))
            try:
                check_ours(connection, self.path)
                connection.pragma("synchronous", "full")
                was = version_of(connection)
                made = self.copy_before(to, now) if was != to else None
                migrate(connection, to)
            finally:
                connection.close()
        except apsw.Error as error:
            raise translate(error) from error
        finally:
            ownership.release()
        return was, made

    def copy_before(self, to: int, now: int) -> Path | None:
        """Keep a copy of what a migration is about to change, unless there is nothing in it; the last three stay.

        Raises:
            UnavailableError: there is no room for it. Then nothing may be changed either.
        """
        folder = self.path.parent / "backups"
        folder.mkdir(exist_ok=True, mode=0o700)
        target = folder / f"{_BEFORE}{to}-{stamp(now)}.db"
        facts = copy_database(self.path, target, self._mark, now)
        if not facts.messages and facts.documents <= 1:  # the mark itself is one
            target.unlink()
            return None
        for old in sorted(folder.glob(f"{_BEFORE}*.db"), key=_age)[:-KEPT_BEFORE]:
            old.unlink()
        return target

    def _is_here(self) -> bool:
        return any(self.path.with_name(self.path.name + end).exists() for end in ("", "-wal"))

    def _set_aside(self, now: int) -> Path | None:
        """Keep what was here under another name. Its log must not stay: it would be applied to the new file."""
        if not self._is_here():
            return None
        aside = self.path.with_name(f"{self.path.name}.replaced-{stamp(now)}")
        with suppress(apsw.Error):  # a damaged one is kept as it is, with its log
            old = apsw.Connection(str(self.path))
            try:
                old.pragma("journal_mode", "delete")
            finally:
                old.close()
        for end in ("-wal", "-shm"):
            beside = self.path.with_name(self.path.name + end)
            if beside.exists():
                beside.replace(aside.with_name(aside.name + end))
        if self.path.exists():
            try:
                os.link(self.path, aside)  # so that there is a database here at every moment
            except OSError:
                shutil.copy2(self.path, aside)
        flush(self.path.parent)
        return aside


def stamp(now: int) -> str:
    """A moment as a part of a file name."""
    return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S%f")[:-3] + "Z"


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _fill(source: Path, part: Path) -> None:
    """Copy a file, and its log if somebody copied that as well; the source is only read."""
    try:
        with source.open("rb") as given, part.open("wb") as out:
            shutil.copyfileobj(given, out, 1 << 20)
        log = source.with_name(source.name + "-wal")
        if log.exists():
            shutil.copyfile(log, part.with_name(part.name + "-wal"))
    except OSError as error:
        raise UnavailableError(f"{error.filename or source}: {error.strerror}") from None
    if not part.stat().st_size:
        raise SchemaError(f"{source} is empty")
