"""The exact counts that the store keeps, as people group them. Reads no message."""

from collections.abc import Iterable

import msgspec

from paceline.engine.core import Core
from paceline.engine.keys import Caller
from paceline.model.messages import NOBODY, FlowKey
from paceline.model.states import State

VIEWS: dict[str, tuple[State, ...]] = {
    "waiting": (State.PENDING,),
    "active": (State.PROCESSING,),
    "completed": (State.COMPLETED,),
    "failed": (State.FAILED,),
    "delayed": (State.SCHEDULED, State.RETRYING),
    "paused": (State.PENDING,),
}
"""The names of the queue view and the states behind them; a pause divides pending ones into two of them."""


class Counted(msgspec.Struct, frozen=True):
    """So many messages of a flow are in a state."""

    key: FlowKey
    sender: str
    state: State
    count: int

    @property
    def account(self) -> str:
        """The account they are pinned to, or else the one that tried or sent them last; empty for neither."""
        return self.key.account or self.sender


async def counted(core: Core, caller: Caller) -> list[Counted]:
    """All counts that the caller may see."""
    tallies = await core.store.tallies()
    keys = core.gates.keys
    if any(tally.flow not in keys for tally in tallies):
        keys.update(await core.store.flow_keys())
    return [
        Counted(keys[tally.flow], tally.sender, State(tally.state), tally.count)
        for tally in tallies
        if tally.count and caller.sees(keys[tally.flow].tenant)
    ]


def by_state(found: Iterable[Counted]) -> dict[str, int]:
    """Sums by the name of the state; every state is there."""
    sums = dict.fromkeys((state.label for state in State), 0)
    for each in found:
        sums[each.state.label] += each.count
    return sums


class Pauses:
    """Which flows wait behind a person's pause; looks at each queue, account and pool once."""

    def __init__(self, core: Core) -> None:
        """As things are now."""
        self._core = core
        self._lanes: dict[str, bool] = {}

    def holds(self, key: FlowKey) -> bool:
        """Whether the queue, the pinned account, or every account of the pool is paused."""
        if self._core.directory.queue(key.queue).paused:
            return True
        if key.account == NOBODY:
            return self._pool(key.lane)
        gate = self._core.gates.account(key.account)
        if gate is None:
            return key.account in self._core.directory.accounts and self._set(key.account)
        return gate.paused

    def _set(self, account: str) -> bool:
        """Whether a person closed an account, of which another node knows the rest."""
        spec = self._core.directory.accounts[account]
        return not self._core.owns_lane(spec.lane) and (spec.paused or not spec.enabled)

    def _pool(self, lane_key: str) -> bool:
        known = self._lanes.get(lane_key)
        if known is None:
            lane = self._core.agenda.lanes.get(lane_key)
            paused = [each.paused for each in lane.accounts.values()] if lane is not None else []
            if not self._core.owns_lane(lane_key):
                specs = self._core.directory.accounts.values()
                paused = [self._set(spec.id) for spec in specs if spec.lane == lane_key]
            known = self._lanes[lane_key] = bool(paused) and all(paused)
        return known


def view_counts(found: Iterable[Counted], pauses: Pauses) -> dict[str, int]:
    """Sums by the names of the queue view."""
    sums = dict.fromkeys(VIEWS, 0)
    for each in found:
        view = _VIEW_OF.get(each.state)
        if view is not None:
            sums["paused" if view == "waiting" and pauses.holds(each.key) else view] += each.count
    return sums


_VIEW_OF = {state: view for view, states in VIEWS.items() if view != "paused" for state in states}
