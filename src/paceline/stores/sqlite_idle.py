"""Copies a store that nobody uses, without changing a byte of it."""

import shutil
from pathlib import Path

from paceline.model.errors import OccupiedError, UnavailableError
from paceline.stores.sqlite_schema import owner_of

LARGEST = 4 * 1024**3
"""The largest store, in bytes, that is copied just to be looked at."""


def copy_idle(source: Path, target: Path) -> None:
    """Copy the database and the log beside it.

    Raises:
        OccupiedError: a process has it open.
        UnavailableError: it is not there, cannot be read, or is too large to be copied here.
    """
    owner = owner_of(source)
    if owner is not None:
        raise OccupiedError(f"{source} is in use by process {owner}")
    try:
        size = sum(path.stat().st_size for path in (source, _log_of(source)) if path.exists())
        if size > min(LARGEST, shutil.disk_usage(target.parent).free // 2):
            raise UnavailableError(
                f"{source} is too large ({size / 1024**3:.1f} GiB) to be copied and looked at"
            )
        shutil.copy(source, target)
        if _log_of(source).exists():
            shutil.copy(_log_of(source), _log_of(target))
    except OSError as error:
        raise UnavailableError(f"{source} cannot be read: {error.strerror}") from None


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
