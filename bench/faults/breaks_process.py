"""Guards of one process, each taken out: what the experiments of `bench.faults` have to notice."""

import asyncio
from collections.abc import Sequence
from typing import Any

from paceline.channels.telegram_bot import TelegramBot
from paceline.clock import SystemClock
from paceline.engine import attempts, intake
from paceline.engine.attempts import Attempts
from paceline.engine.dispatcher import Dispatcher
from paceline.model.limits import Limit
from paceline.model.messages import Added, FlowKey
from paceline.pacing.gates import Gate
from paceline.pacing.windows import Window
from paceline.stores import sqlite_writes
from paceline.stores.postgres import PostgresStore
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_writer import Kind


def resend_after_crash() -> None:
    """After a crash everything that was under way is sent again, also where a repeat is not safe."""
    TelegramBot.repeat_is_safe = True


def yes_before_commit() -> None:
    """Senders are told 'yes' before their message is on disk."""
    add = SqliteStore.add

    def patched(self: SqliteStore, rows: Sequence[Any], flows: Any, now: int) -> Any:
        add(self, rows, flows, now).add_done_callback(lambda done: done.cancelled() or done.exception())
        future = asyncio.get_running_loop().create_future()
        future.set_result([Added(row.id) for row in rows])
        return future

    SqliteStore.add = patched  # type: ignore[method-assign] # that is what a break is


def half_batches() -> None:
    """A batch is stored in two commits."""
    submit = sqlite_writes.Add

    def patched(self: SqliteStore, rows: Sequence[Any], flows: Any, _now: int) -> Any:
        async def both() -> list[Added]:
            half = len(rows) // 2 or 1
            found: list[Added] = []
            for part in filter(None, (rows[:half], rows[half:])):
                found += await self._writer.submit(Kind.ADD, submit(part, flows), len(part))
            return found

        return asyncio.ensure_future(both())

    SqliteStore.add = patched  # type: ignore[method-assign] # that is what a break is


def forget_keys() -> None:
    """Idempotency keys are not looked up."""
    sqlite_writes._take_keys = lambda *_given: None


def resend_unknown() -> None:
    """A call whose outcome nobody learnt is made again, whatever the channel says about repeats."""
    policy = Attempts._policy

    def patched(self: Attempts, message: Any) -> Any:
        return attempts.Policy(policy(self, message).backoff, repeat_is_safe=True)

    Attempts._policy = patched  # type: ignore[method-assign] # that is what a break is


def short_windows() -> None:
    """Every window is a tenth shorter than its limit says."""
    make = Window.__init__

    def patched(self: Window, limit: Limit) -> None:
        make(self, limit)
        self.span = limit.span_ms * 9 // 10

    Window.__init__ = patched  # type: ignore[method-assign] # that is what a break is


def forget_windows() -> None:
    """A start begins with empty windows, whatever the journal says."""

    async def patched(*_given: Any) -> list[Any]:
        return []

    SqliteStore.occupancy = patched  # type: ignore[method-assign] # that is what a break is


def forget_waits() -> None:
    """A start forgets that a provider asked to wait."""

    async def patched(*_given: Any) -> list[Any]:
        return []

    SqliteStore.notes = patched  # type: ignore[method-assign] # that is what a break is
    PostgresStore.notes = patched  # type: ignore[method-assign] # that is what a break is


def ignore_waits() -> None:
    """Nobody waits when a provider asks to."""
    Gate.block = lambda *_given: None  # type: ignore[method-assign] # that is what a break is


def endless_waits() -> None:
    """No wait is too long: what a provider asks for is waited, and nobody is told."""
    policy = Attempts._policy

    def patched(self: Attempts, message: Any) -> Any:
        made = policy(self, message)
        return attempts.Policy(made.backoff, made.repeat_is_safe, longest_wait_ms=1 << 50)

    Attempts._policy = patched  # type: ignore[method-assign] # that is what a break is


def follow_the_wall_clock() -> None:
    """Limits are reckoned by the wall clock, steps and all."""
    import time

    SystemClock._ns = lambda _self: time.time_ns()  # type: ignore[method-assign] # that is what a break is


def send_expired() -> None:
    """`expires_at` is forgotten at intake."""
    add = SqliteStore.add

    def patched(self: SqliteStore, rows: Sequence[Any], flows: Any, now: int) -> Any:
        for row in rows:
            row.expires_at = None
        return add(self, rows, flows, now)

    SqliteStore.add = patched  # type: ignore[method-assign] # that is what a break is


def no_priorities() -> None:
    """Every message has the same priority."""

    def same(lane: str, tenant: str, campaign: str, queue: str, _priority: int, account: str) -> FlowKey:
        return FlowKey(lane, tenant, campaign, queue, 5, account)

    intake.FlowKey = same  # type: ignore[misc, assignment] # that is what a break is


def keep_sending() -> None:
    """Told to stop, it goes on handing over for two seconds."""
    stop = Dispatcher.stop

    async def patched(self: Dispatcher, grace: float) -> None:
        await asyncio.sleep(2)
        await stop(self, grace)

    Dispatcher.pause = lambda _self: None  # type: ignore[method-assign] # that is what a break is
    Dispatcher.stop = patched  # type: ignore[method-assign] # that is what a break is


def no_grace() -> None:
    """Told to stop, it cuts off its calls at once."""
    drain = Attempts.drain

    async def patched(self: Attempts, _grace: float) -> None:
        await drain(self, 0)

    Attempts.drain = patched  # type: ignore[method-assign] # that is what a break is


def endless_grace() -> None:
    """Told to stop, it waits for its calls however long they take."""
    drain = Attempts.drain

    async def patched(self: Attempts, _grace: float) -> None:
        await drain(self, 60)

    Attempts.drain = patched  # type: ignore[method-assign] # that is what a break is


BREAKS = {
    patch.__name__.replace("_", "-"): patch
    for patch in (
        resend_after_crash, yes_before_commit, half_batches, forget_keys, resend_unknown, short_windows,
        forget_windows, forget_waits, ignore_waits, endless_waits, follow_the_wall_clock, send_expired, no_priorities,
        keep_sending, no_grace, endless_grace,
    )
}  # fmt: skip
