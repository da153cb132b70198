"""Reads on in the store for flows whose part in memory runs low.

Flows of accounts that send in step run low in the same moment, usually in the middle of their sending. Reading
costs the same processors as sending; so as long as every flow still has enough in memory, reads keep a
distance, and whoever runs short goes first and at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from paceline.model.errors import UnavailableError
from paceline.pacing.agenda import Agenda
from paceline.pacing.flows import Flow
from paceline.stores.base import FlowAfter, Store

READ_ROWS = 2000
"""Entries read from the store at once: unpacking rows holds up everything else."""
REST = 4
"""While no flow is short, the next read waits so many times as long as the last one took."""


class Refill:
    """One read at a time, for a few flows each."""

    def __init__(
        self,
        store: Store,
        agenda: Agenda,
        away: Callable[[UnavailableError], None],
        filled: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """`away` is told that the store cannot be read, `filled` that there is more to decide about."""
        self._store, self._agenda = store, agenda
        self._away, self._filled, self._spawn = away, filled, spawn
        self._reading = False
        self._stopped = False
        self._go_on = asyncio.Event()

    def look(self) -> None:
        """Read if a flow wants more; end the rest between two reads if one has run short."""
        if not self._agenda.wanted or self._stopped:
            return
        if not self._reading:
            self._reading = True
            self._spawn(self._read())
        elif not self._go_on.is_set() and self._short():
            self._go_on.set()

    def stop(self) -> None:
        """Read no more once the present read is over."""
        self._stopped = True
        self._go_on.set()

    async def _read(self) -> None:
        time = asyncio.get_running_loop().time
        try:
            while self._agenda.wanted and not self._stopped:
                begun = time()
                flows = self._next()
                if flows and not await self._fill(flows):
                    return
                if self._agenda.wanted and not self._short():
                    await self._rest((time() - begun) * REST)
        finally:
            self._reading = False

    def _short(self) -> bool:
        """Whether a flow is about to run out: the agenda keeps those in front."""
        return next(iter(self._agenda.wanted.values())).short

    def _next(self) -> list[Flow]:
        agenda = self._agenda
        flows: list[Flow] = []
        most = max(1, READ_ROWS // agenda.prefetch.size)
        while agenda.wanted and len(flows) < most:
            _, flow = agenda.wanted.popitem(last=False)
            if flow.wants:
                flows.append(flow)
        return flows

    async def _rest(self, seconds: float) -> None:
        if self._stopped:
            return
        self._go_on.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._go_on.wait()

    async def _fill(self, flows: list[Flow]) -> bool:
        requests = [FlowAfter(f.number, *f.begin_reading(), f.prefetch.size) for f in flows]
        try:
            parts = {part.flow: part for part in await self._store.entries(requests)}
        except UnavailableError as error:
            self._away(error)
            for flow in flows:
                self._agenda.filled(flow, (), more=True)  # asked for again once the store is back
            return False
        for flow in flows:
            part = parts.get(flow.number)
            self._agenda.filled(flow, part.entries if part else (), more=part.more if part else False)
        self._filled()
        return True
