"""Guards against a database that goes away, each taken out: what E18 and E19 have to notice."""

from paceline.model.errors import UnavailableError
from paceline.stores.postgres_session import Session
from paceline.stores.postgres_signals import Signals
from paceline.stores.postgres_writer import Writer


def looks_nothing_up() -> None:
    """A commit whose answer was lost counts as not made, whatever the database says of it."""
    resume = Writer._resume

    async def patched(self: Writer, number: int | None) -> bool:
        await resume(self, number)
        return False

    Writer._resume = patched  # type: ignore[method-assign] # that is what a break is


def gives_up() -> None:
    """A writer's connection that was lost is not opened again."""

    async def patched(self: Writer, number: int | None) -> bool:
        raise UnavailableError(f"no connection to {self._name} for {number}")

    Writer._resume = patched  # type: ignore[method-assign] # that is what a break is


def hears_no_more() -> None:
    """A connection that listens and looks is not opened again once it was lost."""
    opened = Signals._open

    async def patched(self: Signals) -> Session:
        if self._session is not None and self._session.closed:
            raise UnavailableError("no connection")
        return await opened(self)

    Signals._open = patched  # type: ignore[method-assign] # that is what a break is


BREAKS = {patch.__name__.replace("_", "-"): patch for patch in (looks_nothing_up, gives_up, hears_no_more)}
