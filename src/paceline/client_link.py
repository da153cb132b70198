"""The seam of the client: what every way to reach an engine can do, and how values become JSON."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from paceline.client_types import Event
from paceline.model.errors import InvalidError, Problem

Json = dict[str, Any]


class Link(Protocol):
    """Where the calls go: `client_http` or `client_embedded`. Answers are the JSON of the HTTP contract."""

    async def open(self) -> None:
        """Connect, or open the store."""

    async def close(self) -> None:
        """Give everything back."""

    async def submit(self, body: Json, wait: float | None) -> Json:
        """Take one message in."""

    async def submit_batch(self, bodies: Sequence[Json], defaults: Json) -> Json:
        """Take many in."""

    async def wait(self, id_: str, seconds: float) -> Json | None:
        """The message once it has ended; None when time is up."""

    async def message(self, verb: str, id_: str, body: Json | None = None) -> Json:
        """One message: get, why, trace, patch, retry, cancel, settle, delete."""

    async def batch(self, id_: str) -> Json:
        """How far a batch is."""

    async def find(self, query: Mapping[str, list[str]], cursor: str | None, limit: int) -> Json:
        """A page of messages."""

    async def act(self, body: Json, dry_run: bool) -> Json:
        """One action on many messages."""

    async def account(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One account: get, put, delete, pause, resume, probe, test, queue."""

    async def accounts(self, cursor: str | None, limit: int) -> Json:
        """A page of accounts."""

    async def limit(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One limit: get, put, delete."""

    async def limits(self) -> list[Json]:
        """Every limit."""

    async def queue(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One queue: put, pause, resume, empty, clean."""

    async def queues(self) -> Json:
        """Counts of every queue."""

    async def template(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One template: get, put, delete, preview."""

    async def templates(self) -> list[Json]:
        """Every template."""

    async def overview(self) -> Json:
        """Totals and rates."""

    def events(self, types: frozenset[str] | None, query: Mapping[str, str | None]) -> AsyncIterator[Event]:
        """What happens from now on."""


def body_of(fields: Mapping[str, Any], *, keep_none: bool = False) -> Json:
    """Fields as JSON has them: None is left out, moments are text, any other sequence is a list."""
    return {name: _plain(value) for name, value in fields.items() if keep_none or value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidError([Problem("", f"the moment {value.isoformat()} needs a time zone")])
        return value.isoformat()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return value


def texts_of(value: Any) -> list[str]:
    """A filter's value, or several, as the parameters of a query."""
    if isinstance(value, list | tuple | set | frozenset):
        return [str(_plain(one)) for one in value]
    return [str(_plain(value))]
