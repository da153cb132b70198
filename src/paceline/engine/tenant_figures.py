"""Rates and durations of each tenant alone, so that a tenant's key sees its own and nobody else's."""

from collections import OrderedDict
from typing import Protocol

from paceline.engine.attempts import Ended
from paceline.engine.core import Core
from paceline.engine.events import StreamEvent
from paceline.engine.figures import Histogram, Rate
from paceline.engine.keys import Caller
from paceline.model.states import State

MOST = 2000
"""Tenants whose figures are kept; the one that was quiet for longest makes room."""


class Flowing(Protocol):
    """What came and went lately: everybody's (`figures.Figures`) or one tenant's."""

    added_rate: Rate
    sent_rate: Rate
    failed_rate: Rate
    sends: Histogram
    waits: Histogram


class _OfTenant:
    """One tenant's figures."""

    __slots__ = ("added_rate", "failed_rate", "sends", "sent_rate", "waits")

    def __init__(self) -> None:
        self.added_rate, self.sent_rate, self.failed_rate = Rate(), Rate(), Rate()
        self.sends, self.waits = Histogram(), Histogram()


class TenantFigures:
    """Listens to the bus and counts by tenant."""

    def __init__(self, core: Core) -> None:
        """Counts from now on."""
        self._core = core
        self._tenants: OrderedDict[str, _OfTenant] = OrderedDict()
        core.bus.tap(self._heard)

    def of(self, caller: Caller) -> Flowing:
        """The figures that the caller may see."""
        if caller.tenant is None:
            return self._core.figures
        return self._tenants.get(caller.tenant) or _OfTenant()

    def _heard(self, event: StreamEvent) -> None:
        if not event.tenant:
            return
        if event.type == "message-queued":
            self._own(event.tenant).added_rate.add(self._core.figures.second)
        elif isinstance(event.source, Ended):
            self._ended(self._own(event.tenant), event.source)

    def _own(self, tenant: str) -> _OfTenant:
        own = self._tenants.get(tenant)
        if own is None:
            own = self._tenants[tenant] = _OfTenant()
            if len(self._tenants) > MOST:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return own

    def _ended(self, own: _OfTenant, ended: Ended) -> None:
        second, state = ended.finished // 1000, State(ended.verdict.settlement.state)
        own.sends.add(ended.finished - ended.started)
        if state is State.COMPLETED:
            own.sent_rate.add(second)
            own.waits.add(max(0, ended.started - ended.message.due_at))
        elif state in (State.FAILED, State.EXPIRED, State.UNCERTAIN):
            own.failed_rate.add(second)
