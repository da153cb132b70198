"""A PostgreSQL store that is only looked at: nothing is owned, made, brought up to date or written."""

from typing import Any

from paceline.model.errors import NotFoundError, SchemaError
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_migrate import newest_version, version_of
from paceline.stores.postgres_reader import Readers
from paceline.stores.postgres_session import QUICK, SEARCHING, check_server, connect, translate

_NAME = "paceline doctor"
_SECONDS = 10.0


class PostgresLook(PostgresStore):
    """A `Store` of which every read works and every write is refused, beside a server that runs or without one."""

    async def open(self, now: int) -> None:
        """Find the store.

        Raises:
            NotFoundError: there is none.
            SchemaError: it is not a Paceline store, or one of another version.
            UnavailableError: the server cannot be reached.
        """
        session = await connect(self.address, _NAME, QUICK)
        try:
            self._version = await check_server(session, self.address)
            version, newest = await version_of(session, self.address), newest_version()
        except Exception as error:
            raise translate(error, self.address.name) from error
        finally:
            await session.close()
        if not version:
            raise NotFoundError(f"there is no store at {self.address.name}; `paceline up` makes one")
        if version < newest:
            raise SchemaError(
                f"{self.address.name} has schema {version}, this Paceline needs {newest}; `paceline up` brings it there"
            )
        self._quick = Readers(self.address, 1, _NAME, QUICK, _SECONDS)
        self._slow = Readers(self.address, 1, _NAME, SEARCHING, _SECONDS)

    async def health(self) -> dict[str, Any]:
        """See `Store.health`: what can be told without writing."""
        size = await self._read(lambda session: session.value("database_bytes"))
        return {
            "engine": "postgresql",
            "version": self._version,
            "address": self.address.name,
            "file_bytes": size,
        }
