"""Figures for Prometheus, put together when they are asked for.

Labels hold names of queues and states, and of accounts only while there are few; never a recipient or a text.
What only the store knows (scheduled, retrying and ended messages, its own health) is read beside the scrape and
is therefore as old as the scrape before.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from paceline.engine.core import Core
from paceline.engine.figures import BOUNDS_MS, Histogram
from paceline.model.errors import PacelineError
from paceline.model.states import State

MOST_QUEUES = 500
"""Queues with a label of their own; a sender may name any queue, so the rest are counted as ``other``."""
MOST_ACCOUNTS = 1000
"""Accounts up to which each has a series of its own."""
OTHER = "other"

_STORED = (State.SCHEDULED, State.RETRYING, State.COMPLETED, State.FAILED, State.UNCERTAIN)
_HEALTH = {
    "file_bytes": "Size of the store's file",
    "wal_bytes": "Size of the store's write-ahead log",
    "free_bytes": "Free space beside the store",
    "commit_ms": "Duration of the last commits, milliseconds",
    "flush_ms": "Duration of the last flushes to disk, milliseconds",
    "pending": "Writes that wait for the next commit",
}

log = structlog.get_logger("paceline.metrics")


class Metrics(Collector):
    """Collects from the engine's figures."""

    def __init__(self, core: Core) -> None:
        """Make a registry of its own, with this and the process's figures in it."""
        self._core = core
        self._stored: Counter[tuple[str, str]] = Counter()
        self._health: dict[str, Any] = {}
        self._reading: asyncio.Task[None] | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def refresh(self) -> None:
        """Begin to read what only the store knows, for the next scrape; on the event loop."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def read(self) -> None:
        """Wait until what only the store knows is of now."""
        self.refresh()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        core = self._core
        try:
            tallies = await core.store.tallies()
            self._health = await core.store.health()
        except PacelineError as error:
            log.warning("metrics are of an earlier moment", reason=str(error))
            return
        stored: Counter[tuple[str, str]] = Counter()
        for tally in tallies:
            key = core.gates.keys.get(tally.flow)
            if key is not None and tally.state in _STORED:
                stored[key.queue, State(tally.state).label] += tally.count
        self._stored = stored

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is shows when it is collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        named = _named(self._queue_names())
        yield self._messages(named)
        yield self._depth(named)
        yield from self._durations(named)
        figures = self._core.figures
        yield self._by_account("flood_waits", "Times that a provider said to wait", figures.floods)
        yield self._by_account("circuit_openings", "Times that a provider was found down", figures.circuits)
        yield self._accounts()
        yield from self._store()
        yield from self._threads()
        yield from self._engine()

    def _queue_names(self) -> list[str]:
        figures = self._core.figures.queues
        return [
            *self._core.directory.queues,
            *(name for name in figures if name not in self._core.directory.queues),
        ]

    def _messages(self, named: dict[str, str]) -> Metric:
        sums: Counter[tuple[str, str]] = Counter()
        for queue, figures in self._core.figures.queues.items():
            name = named.get(queue, OTHER)
            sums[name, "added"] += figures.added
            for status, count in figures.ended.items():
                sums[name, status] += count
        family = CounterMetricFamily(
            "paceline_messages", "Messages taken in, and calls by how they ended", labels=("queue", "status")
        )
        for labels, count in sums.items():
            family.add_metric(labels, count)
        return family

    def _depth(self, named: dict[str, str]) -> Metric:
        core = self._core
        sums: Counter[tuple[str, str]] = Counter()
        for (queue, state), count in self._stored.items():
            sums[named.get(queue, OTHER), state] += count
        for number, count in core.dispatcher.pending.items():
            key = core.gates.keys.get(number)
            if key is not None:
                sums[named.get(key.queue, OTHER), State.PENDING.label] += max(0, count)
        for release in core.agenda.out.values():
            sums[named.get(release.flow.key.queue, OTHER), State.PROCESSING.label] += 1
        family = GaugeMetricFamily(
            "paceline_queue_depth", "Messages in each state", labels=("queue", "state")
        )
        for labels, count in sums.items():
            family.add_metric(labels, count)
        return family

    def _durations(self, named: dict[str, str]) -> Iterator[Metric]:
        for part, text in (
            ("send", "How long calls to providers take"),
            ("wait", "From due to the start of the call"),
        ):
            sums: defaultdict[str, list[Histogram]] = defaultdict(list)
            for queue, figures in self._core.figures.queues.items():
                sums[named.get(queue, OTHER)].append(figures.sends if part == "send" else figures.waits)
            family = HistogramMetricFamily(f"paceline_{part}_duration_seconds", text, labels=("queue",))
            for queue, histograms in sums.items():
                family.add_metric((queue,), _buckets(histograms), sum(h.sum for h in histograms) / 1000)
            yield family

    def _by_account(self, what: str, text: str, counts: Mapping[str, int]) -> Metric:
        name = f"paceline_account_{what}"
        if len(self._core.directory.accounts) > MOST_ACCOUNTS:
            return CounterMetricFamily(name, text, value=sum(counts.values()))
        family = CounterMetricFamily(name, text, labels=("tenant", "account"))
        for account, count in counts.items():
            if account in self._core.directory.accounts:
                tenant, _, name = account.partition("/")
                family.add_metric((tenant, name), count)
        return family

    def _accounts(self) -> Metric:
        core, now = self._core, self._core.clock.now()
        states: Counter[str] = Counter(dict.fromkeys(("ready", "paused", "unhealthy", "flooded"), 0))
        for id_, spec in core.directory.accounts.items():
            if not core.owns_lane(spec.lane):
                continue  # told by the node that sends for it
            gate = core.gates.account(id_)
            if gate is None or gate.paused:
                states["paused"] += 1
            elif gate.stopped or (gate.circuit is not None and gate.circuit.is_probing):
                states["unhealthy"] += 1
            else:
                states["flooded" if gate.blocked_until > now else "ready"] += 1
        family = GaugeMetricFamily("paceline_accounts", "Accounts by what blocks them", labels=("state",))
        for state, count in states.items():
            family.add_metric((state,), count)
        return family

    def _store(self) -> Iterator[Metric]:
        for name, text in _HEALTH.items():
            value = self._health.get(name)
            if isinstance(value, (int, float)):
                yield GaugeMetricFamily(f"paceline_store_{name}", text, value=value)
        commits = self._health.get("commits")
        if isinstance(commits, int):
            yield CounterMetricFamily("paceline_store_commits", "Commits since the start", value=commits)

    def _threads(self) -> Iterator[Metric]:
        pool = self._core.threads
        if pool is None:
            return
        for name, value in pool.figures.items():
            if name == "completed":
                yield CounterMetricFamily("paceline_threads_completed", "Handlers that returned", value=value)
            else:
                yield GaugeMetricFamily(
                    f"paceline_threads_{name}", f"Pool of threads for handlers: {name}", value=value
                )

    def _engine(self) -> Iterator[Metric]:
        dispatcher = self._core.dispatcher
        yield GaugeMetricFamily("paceline_in_flight", "Calls under way", value=len(self._core.agenda.out))
        yield GaugeMetricFamily(
            "paceline_running", "1 while messages are released", value=int(dispatcher.running)
        )
        yield GaugeMetricFamily(
            "paceline_store_away", "1 while the store cannot write", value=int(dispatcher.away)
        )


def _named(queues: Iterable[str]) -> dict[str, str]:
    """The label of each queue that has its own."""
    return {queue: queue for queue, _ in zip(queues, range(MOST_QUEUES), strict=False)}


def _buckets(histograms: list[Histogram]) -> list[tuple[str, float]]:
    sums = [sum(column) for column in zip(*(h.counts for h in histograms), strict=True)]
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(sums)), strict=True))
