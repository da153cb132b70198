"""Rates and durations of each tenant alone, so that a tenant's key sees its own and nobody else's."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Protocol

from paceline.engine.attempts import Ended
from paceline.engine.core import Core
from paceline.engine.figures import Histogram, Rate
from paceline.engine.keys import Caller
from paceline.model.messages import NewMessage
from paceline.model.states import State

_COMPLETED = int(State.COMPLETED)
_FAILED = frozenset({int(State.FAILED), int(State.EXPIRED), int(State.UNCERTAIN)})

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
    """Listens to what happens and counts by tenant."""

    def __init__(self, core: Core) -> None:
        """Counts from now on."""
        self._core = core
        self._tenants: OrderedDict[str, _OfTenant] = OrderedDict()
        core.happenings.when_added.append(self._added)
        core.happenings.when_settled.append(self._settled)

    def of(self, caller: Caller) -> Flowing:
        """The figures that the caller may see."""
        if caller.tenant is None:
            return self._core.figures
        return self._tenants.get(caller.tenant) or _OfTenant()

    def _added(self, rows: Sequence[NewMessage]) -> None:
        for (tenant, second), count in Counter((row.tenant, row.created_at // 1000) for row in rows).items():
            self._own(tenant).added_rate.add(second, count)

    def _settled(self, ended: Sequence[Ended]) -> None:
        by_tenant: defaultdict[str, list[Ended]] = defaultdict(list)
        for each in ended:
            if each.outcome is not None:
                by_tenant[each.message.tenant].append(each)
        for tenant, own in by_tenant.items():
            self._count(self._own(tenant), own)

    def _own(self, tenant: str) -> _OfTenant:
        own = self._tenants.get(tenant)
        if own is None:
            own = self._tenants[tenant] = _OfTenant()
            if len(self._tenants) > MOST:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return own

    def _count(self, own: _OfTenant, ended: Sequence[Ended]) -> None:
        own.sends.add([each.finished - each.started for each in ended])
        sent = [each for each in ended if each.verdict.settlement.state == _COMPLETED]
        own.sent_rate.count([each.finished // 1000 for each in sent])
        own.waits.add([max(0, each.started - each.message.due_at) for each in sent])
        if len(sent) < len(ended):
            own.failed_rate.count(
                [each.finished // 1000 for each in ended if each.verdict.settlement.state in _FAILED]
            )
