"""Which kind of store the tests marked `every_store` run on at this moment. Not tests."""

from pathlib import Path

from paceline.engine.installation import mark_copy
from paceline.stores.base import Store

SQLITE, POSTGRES = "sqlite", "postgres"

present = SQLITE
"""Set for each test by the fixture `store_kind`."""


def store_in(folder: Path) -> Store:
    """The store that belongs to a folder, of the present kind: the same at each call."""
    if present == POSTGRES:
        from paceline.stores.postgres import PostgresStore
        from tests.contracts.stores.postgres_server import url_for

        return PostgresStore(url_for(folder))
    from paceline.stores.sqlite import SqliteStore

    return SqliteStore(folder / "queue.db", mark_copy)


def url_of(folder: Path) -> str | None:
    """The URL by which a server of its own finds the store of a folder; None for the file that is in it."""
    if present == SQLITE:
        return None
    from tests.contracts.stores.postgres_server import url_for

    return url_for(folder)
