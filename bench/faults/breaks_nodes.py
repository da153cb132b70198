"""Guards of several nodes on one store, each taken out: what E02 has to notice."""

import asyncio
from typing import Any, Final

import msgspec

from paceline.engine import account_documents
from paceline.engine.news import News
from paceline.model.nodes import Standing
from paceline.stores import statements
from paceline.stores.nodes import Changed
from paceline.stores.postgres import PostgresStore
from paceline.stores.postgres_node import Membership
from paceline.stores.postgres_nodes import PostgresNodes

_DEAF_S: Final = 3.0


def forget_nodes_windows() -> None:
    """Who follows a node begins with empty windows, whatever the journal says."""

    async def patched(*_given: Any) -> list[Any]:
        return []

    PostgresStore.occupancy = patched  # type: ignore[method-assign] # that is what a break is


def no_lease() -> None:
    """Calls begin whether or not the lease of the node holds."""
    PostgresNodes.may_send = lambda _self: True  # type: ignore[method-assign] # that is what a break is


def no_fence() -> None:
    """A node that was ended goes on writing until it hears of that."""
    found = statements.load_statements("postgres")
    fence = found["fence"]
    found["fence"] = msgspec.structs.replace(fence, sql=fence.sql.replace("AND NOT ended", ""))


def deaf() -> None:
    """A node that was ended does not hear of it for three seconds. Harmless as long as lease and fence are there."""
    told, standing = PostgresNodes._ended, PostgresNodes.standing
    since: dict[str, float] = {}

    def later(self: PostgresNodes, member: Membership) -> None:
        asyncio.get_running_loop().call_later(_DEAF_S, told, self, member)

    async def patched(self: PostgresNodes) -> Standing:
        member, owned = self._joined, self._joined.owned
        seen = await standing(self)
        now = asyncio.get_running_loop().time()
        if seen.ended and now - since.setdefault(member.id, now) < _DEAF_S:
            member.owned = owned
            return msgspec.structs.replace(seen, ended=False, nodes=())
        return seen

    PostgresNodes._ended = later  # type: ignore[method-assign] # that is what a break is
    PostgresNodes.standing = patched  # type: ignore[method-assign] # that is what a break is


def old_limits() -> None:
    """A node hears of an account that another one made, and never again of a change of it."""
    apply = News.apply
    known: set[tuple[str, str]] = set()

    async def patched(self: News, change: Changed) -> None:
        place = (change.tenant, change.name)
        if change.kind != account_documents.KIND or place not in known:
            known.add(place)
            await apply(self, change)

    News.apply = patched  # type: ignore[method-assign] # that is what a break is


BREAKS = {
    patch.__name__.replace("_", "-"): patch
    for patch in (forget_nodes_windows, no_lease, no_fence, deaf, old_limits)
}
