"""What people watch: totals, rates, failures, the scheduler, events, metrics."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from paceline.engine.core import Core
from paceline.engine.counting import Counted, by_state, counted
from paceline.engine.events import StreamEvent
from paceline.engine.figures import SECONDS, Histogram
from paceline.engine.holds import HOW, Holds
from paceline.engine.keys import Caller, DeniedError
from paceline.engine.metrics import Metrics
from paceline.engine.tenant_figures import Flowing, TenantFigures
from paceline.engine.views import error_view
from paceline.model.accounts import DAY_MS
from paceline.model.checks import print_time
from paceline.model.errors import InvalidError, Problem
from paceline.model.states import WAITING, State
from paceline.pacing.scopes import channel_of
from paceline.stores.base import Daily

HEARTBEAT_S = 15.0
MOST_GROUPS = 1000
"""Queues or accounts listed in one answer, those with the most messages first."""
FAILURES_BY = ("code", "class", "channel")

log = structlog.get_logger("paceline.watch")


class Watch:
    """The verbs of watching. A tenant's key sees its own messages and events, and nothing of others."""

    def __init__(self, core: Core, holds: Holds) -> None:
        """`core` holds the parts of the engine; `holds` tells whether everything is held back."""
        self._core, self._holds = core, holds
        self._tenants = TenantFigures(core)
        self._metrics = Metrics(core)
        self._since = core.clock.now()

    # -- statistics

    async def overview(self, caller: Caller) -> dict[str, Any]:
        """Totals, success rates, throughput and times, by queue, channel and account.

        Counts and success rates are exact, from the store. Throughput and percentiles are this process's
        since it started. Sources and groups are labels without kept counts: ask for them with a filter.
        """
        core = self._core
        found = await counted(core, caller)
        today = core.clock.now() // DAY_MS
        days = [row for row in await core.store.daily([0, today]) if caller.sees(row.tenant)]
        life = [row for row in days if row.day == 0]
        flowing = self._tenants.of(caller)
        totals = by_state(found)
        return {
            "timestamp": print_time(core.clock.now()),
            "totals": totals,
            "total": sum(totals.values()),
            "hold": self._holds.status(caller),
            "success_rate": {
                "overall": success_rate(life),
                "today": success_rate(row for row in days if row.day == today),
            },
            "throughput": self._rates(flowing, over=10),
            "wait_ms": percentiles(flowing.waits),
            "send_ms": percentiles(flowing.sends),
            "by_queue": _groups(found, life, lambda c: c.key.queue, lambda d: d.queue),
            "by_channel": _groups(found, life, lambda c: channel_of(c.key), lambda d: d.channel),
            "by_account": _account_groups(found, life),
        }

    async def realtime(self, caller: Caller) -> dict[str, Any]:
        """The last minute, second by second, and what is under way."""
        core = self._core
        flowing, second = self._tenants.of(caller), core.figures.second
        totals = by_state(await counted(core, caller))
        return {
            "timestamp": print_time(core.clock.now()),
            "is_running": core.dispatcher.running and self._holds.held is None,
            "in_flight": totals[State.PROCESSING.label],
            "waiting": sum(totals[state.label] for state in WAITING),
            "rates": self._rates(flowing, over=10),
            "rates_minute": self._rates(flowing, over=SECONDS - 1),
            "series": {
                "seconds": SECONDS - 1,
                "added": flowing.added_rate.series(second),
                "sent": flowing.sent_rate.series(second),
                "failed": flowing.failed_rate.series(second),
            },
        }

    async def failures(self, caller: Caller, by: str) -> dict[str, Any]:
        """Why calls failed since this process started, the most frequent reason first.

        Raises:
            InvalidError: they cannot be grouped like that.
        """
        if by not in FAILURES_BY:
            raise InvalidError([Problem("/by", "must be one of " + ", ".join(FAILURES_BY))])
        sums: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for (tenant, channel, outcome, code), count in self._core.figures.failures.items():
            if caller.sees(tenant):
                class_ = _class_of(outcome)
                sums[{"code": (code, class_, channel), "class": (class_,), "channel": (channel,)}[by]] += (
                    count
                )
        names = {"code": ("code", "class", "channel"), "class": ("class",), "channel": ("channel",)}[by]
        ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        items = [
            {**dict(zip(names, key, strict=True)), "count": count} for key, count in ordered[:MOST_GROUPS]
        ]
        return {"by": by, "since": print_time(self._since), "total": sum(sums.values()), "items": items}

    def _rates(self, flowing: Flowing, over: int) -> dict[str, float]:
        second = self._core.figures.second
        return {
            "added": round(flowing.added_rate.per_second(second, over), 3),
            "sent": round(flowing.sent_rate.per_second(second, over), 3),
            "failed": round(flowing.failed_rate.per_second(second, over), 3),
        }

    # -- the scheduler

    async def scheduler(self, caller: Caller) -> dict[str, Any]:
        """Whether messages are released, and how many wait.

        `active_services` counts the accounts that nobody paused and no provider refused.
        """
        core = self._core
        health = await core.store.health()
        totals = by_state(await counted(core, caller))
        gates = (core.gates.account(s.id) for s in core.directory.accounts.values() if caller.sees(s.owner))
        held = self._holds.held is not None
        running = core.dispatcher.running and not held
        answer: dict[str, Any] = {
            "is_running": running,
            "active_services": sum(1 for gate in gates if gate and not gate.paused and not gate.stopped),
            "total_queued_subtasks": sum(totals[state.label] for state in WAITING),
            "processing_rate": self._rates(self._tenants.of(caller), over=10)["sent"],
            "last_health_check": print_time(core.clock.now()) if health else None,
        }
        if held:
            answer["detail"] = f"on hold; {HOW}"
        elif not running:
            answer["detail"] = (
                "stopped; it goes on with POST /api/v1/scheduler/start or when the process restarts"
            )
        return answer

    async def stop(self, caller: Caller) -> dict[str, Any]:
        """Release nothing more until `start`, or until the process restarts: it is not kept in the store.

        Calls under way end, messages are still taken in.

        Raises:
            DeniedError: the caller is no operator of the installation.
        """
        self._must_operate(caller)
        self._core.dispatcher.pause()
        self._core.outlook.running = False
        log.warning("scheduler stopped", caller=caller.name)
        return await self.scheduler(caller)

    async def start(self, caller: Caller) -> dict[str, Any]:
        """Release again.

        Raises:
            DeniedError: the caller is no operator of the installation.
        """
        self._must_operate(caller)
        self._core.outlook.running = True
        self._core.dispatcher.start()
        log.info("scheduler started", caller=caller.name)
        return await self.scheduler(caller)

    @staticmethod
    def _must_operate(caller: Caller) -> None:
        caller.must("operator")
        if caller.tenant is not None:
            raise DeniedError("the scheduler is everybody's: this takes a key of the whole installation")

    # -- events and metrics

    def subscribe(
        self,
        caller: Caller,
        types: Collection[str] | None = None,
        queue: str | None = None,
        account: str | None = None,
        campaign: str | None = None,
        last_id: str | None = None,
    ) -> AsyncIterator[StreamEvent | None]:
        """Events as they happen, first those after `last_id`; None every 15 s as a heart beat.

        Every condition given has to match. Events that belong to no tenant are for installation keys only.
        Closing the iterator ends the subscription.

        Raises:
            InvalidError: `last_id` is not the id of an event.
        """
        wanted = None if types is None else frozenset(types)

        def accepts(event: StreamEvent) -> bool:
            return (
                (caller.tenant is None or event.tenant == caller.tenant)
                and (wanted is None or event.type in wanted)
                and (queue is None or event.queue == queue)
                and (account is None or event.account.rpartition("/")[2] == account)
                and (campaign is None or event.campaign == campaign)
            )

        if last_id is not None and not (last_id.isascii() and last_id.isdigit() and len(last_id) <= 18):
            raise InvalidError([Problem("/last_event_id", "must be the id of an event")])
        return self._core.bus.listen(accepts, None if last_id is None else int(last_id), HEARTBEAT_S)

    def metrics(self) -> CollectorRegistry:
        """What Prometheus reads. To be called on the event loop."""
        self._metrics.refresh()
        return self._metrics.registry


def success_rate(rows: Iterable[Daily]) -> float | None:
    """The share of ended messages that were sent; None before the first one."""
    completed = failed = 0
    for row in rows:
        completed += row.completed
        failed += row.failed
    ended = completed + failed
    return round(completed / ended, 6) if ended else None


def percentiles(histogram: Histogram) -> dict[str, float | None]:
    """The durations that 50, 95 and 99 of a hundred stay under, and their mean."""
    mean = round(histogram.sum / histogram.total, 3) if histogram.total else None
    return {
        "p50": histogram.percentile(0.5),
        "p95": histogram.percentile(0.95),
        "p99": histogram.percentile(0.99),
        "mean": mean,
        "count": histogram.total,
    }


def _groups(found: list[Counted], life: list[Daily], of_count: Any, of_day: Any) -> list[dict[str, Any]]:
    """Counts by state, and the success rate since ever, of each group; those without a name are left out."""
    counts: defaultdict[str, list[Counted]] = defaultdict(list)
    for each in found:
        counts[of_count(each)].append(each)
    days: defaultdict[str, list[Daily]] = defaultdict(list)
    for row in life:
        days[of_day(row)].append(row)
    groups: list[dict[str, Any]] = []
    for name in {*counts, *days} - {""}:
        totals = by_state(counts[name])
        groups.append({
            "name": name, "total": sum(totals.values()), "counts": {s: n for s, n in totals.items() if n},
            "success_rate": success_rate(days[name]),
        })  # fmt: skip
    groups.sort(key=lambda group: (-group["total"], group["name"]))
    return groups[:MOST_GROUPS]


def _account_groups(found: list[Counted], life: list[Daily]) -> list[dict[str, Any]]:
    groups = _groups(found, life, lambda c: c.account, lambda d: d.account)
    for group in groups:
        group["tenant"], _, group["name"] = group["name"].partition("/")
    return groups


def _class_of(outcome: str) -> str:
    view = error_view(outcome, None, None)
    return str(view["class"]) if view else outcome
