"""The filters of messages, as options: those of ``GET /messages``."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Group, Parameter

from paceline.cli.server import Query

_FILTER = Group("Filters", help="All combinable; one given again means 'or'.", sort_key=50)
_Texts = Annotated[list[str] | None, Parameter(group=_FILTER, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Filters:
    """Which messages are meant."""

    state: _Texts = None
    """scheduled, pending, processing, retrying, completed, failed, cancelled, expired or uncertain."""

    queue: _Texts = None
    """Name of the queue."""

    channel: _Texts = None
    """Name of the channel."""

    account: _Texts = None
    """Name of the account."""

    pool: _Texts = None
    """Name of the pool."""

    to: _Texts = None
    """The recipient."""

    tenant: _Texts = None
    """Whose message it is."""

    campaign: _Texts = None
    """The campaign."""

    batch: _Texts = None
    """The id of the batch."""

    group: _Texts = None
    """The group label."""

    source: _Texts = None
    """The source label."""

    kind: _Texts = None
    """The kind of message or job."""

    code: _Texts = None
    """The code of its last call's ending, such as quarantined."""

    priority: _Texts = None
    """0 to 10 or a name."""

    created_from: Annotated[str | None, Parameter(group=_FILTER)] = None
    """Taken in at this moment or later, for example 2030-01-31T00:00:00Z."""

    created_to: Annotated[str | None, Parameter(group=_FILTER)] = None
    """Taken in before this moment."""

    q: Annotated[str | None, Parameter(group=_FILTER)] = None
    """Text in the subject, the body or the recipient."""

    def query(self) -> dict[str, str | list[str]]:
        """As the parameters of the call."""
        return {name: value for name, value in vars(self).items() if value}


def merged(filters: Filters, **more: str | int | None) -> Query:
    """The filters with more parameters beside them."""
    return {**filters.query(), **more}


EVERYTHING: Final = Filters()
"""No filter."""
