"""Bugs put into the product on purpose, to see the simulation find them. Each is a patch that is taken back."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from paceline.engine import attempts, recovery
from paceline.engine.dispatcher import Dispatcher
from paceline.engine.gates import Gates
from paceline.engine.messages import Messages
from paceline.engine.starts import Starts
from paceline.model.messages import AccountNote, Added, HandedOver, Mark
from paceline.model.outcomes import RateLimited
from paceline.model.states import State
from paceline.pacing import circuit, forecast
from paceline.pacing.agenda import Agenda
from paceline.pacing.circuit import Circuit
from paceline.pacing.lane import Lane, Release
from paceline.pacing.quotas import Quota
from paceline.pacing.settle import settle
from paceline.pacing.turns import Turns
from paceline.pacing.windows import Window
from tests.simulation.clock import ProcessClock
from tests.simulation.store import SimulatedStore
from tests.simulation.tables import Tables

Patch = Callable[[], list[tuple[Any, str, Any]]]


def _unfenced() -> list[tuple[Any, str, Any]]:
    """A settlement of an earlier hand-over is taken."""
    made = Tables.__init__

    def init(self: Tables) -> None:
        made(self)
        self.fenced = False

    return [(Tables, "__init__", init)]


def _counted_from_start() -> list[tuple[Any, str, Any]]:
    """A send occupies its window from its start on, not from its finish."""
    settled = Agenda.settled

    def wrong(self: Agenda, message: int, at: int, *, spent: bool = True) -> Release | None:
        release = self.out.get(message)
        return settled(self, message, min(at, release.start_at or at) if release else at, spent=spent)

    return [(Agenda, "settled", wrong)]


def _resends() -> list[tuple[Any, str, Any]]:
    """After a crash everything is sent again."""
    made = recovery._settlement

    def wrong(message: HandedOver, *rest: Any) -> Any:
        settlement = made(message, *rest)
        settlement.event, settlement.state = "give-back", State.PENDING
        return settlement

    return [(recovery, "_settlement", wrong)]


def _called_before_mark() -> list[tuple[Any, str, Any]]:
    """The provider is called while the hand-over is being written."""
    real = SimulatedStore.hand_over

    async def wrong(self: SimulatedStore, marks: Sequence[Mark], now: int) -> list[HandedOver]:
        writing = asyncio.ensure_future(real(self, marks, now))
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        handed = []
        for mark in marks:
            kept = self.tables.messages.get(mark.id)
            if kept is not None and kept.state == State.PENDING and kept.flow == mark.flow:
                row = kept.handed_over(mark.account)
                row.number += 1
                handed.append(row)
        return handed

    return [(SimulatedStore, "hand_over", wrong)]


def _acknowledged_before_commit() -> list[tuple[Any, str, Any]]:
    """'Yes' is said when the message is on its way to the disk."""
    real = Messages._begin

    def wrong(self: Messages, prepared: Any) -> "asyncio.Future[list[Added]]":
        real(self, prepared).add_done_callback(lambda done: done.cancelled() or done.exception())
        future: asyncio.Future[list[Added]] = asyncio.get_running_loop().create_future()
        future.set_result([Added(each.row.id) for each in prepared])
        return future

    return [(Messages, "_begin", wrong)]


def _waits_forgotten() -> list[tuple[Any, str, Any]]:
    """Flood waits are not read at the start."""

    async def wrong(self: SimulatedStore) -> list[AccountNote]:
        return []

    return [(SimulatedStore, "notes", wrong)]


def _wait_costs_attempt() -> list[tuple[Any, str, Any]]:
    """A flood wait counts as an attempt."""
    real = settle

    def wrong(message: HandedOver, outcome: Any, *rest: Any) -> Any:
        verdict = real(message, outcome, *rest)
        if isinstance(outcome, RateLimited):
            verdict.settlement.attempts += 1
        return verdict

    return [(attempts, "settle", wrong)]


def _wide_not_taken() -> list[tuple[Any, str, Any]]:
    """A send takes its place at its account and forgets the wider limits."""
    real = Lane._take

    def wrong(self: Lane, *rest: Any) -> Release:
        release = real(self, *rest)
        for gate in release.gates:
            gate.withdraw()
        release.gates = ()
        return release

    return [(Lane, "_take", wrong)]


def _quota_not_released() -> list[tuple[Any, str, Any]]:
    """A refused send uses up quota."""

    def wrong(self: Quota, *, spent: bool) -> None:
        self.flying -= 1

    return [(Quota, "settle", wrong)]


def _clock_obeyed() -> list[tuple[Any, str, Any]]:
    """The process follows the wall clock when somebody sets it."""

    def wrong(self: ProcessClock) -> int:
        self.anchor_us = self._world.wall_us
        return real(self)

    real = ProcessClock._us
    return [(ProcessClock, "_us", wrong)]


def _clock_ignored() -> list[tuple[Any, str, Any]]:
    """What is scheduled does not follow the wall clock when somebody sets it."""
    return [(ProcessClock, "ahead", lambda _self: 0)]


def _history_forgotten() -> list[tuple[Any, str, Any]]:
    """Windows are empty after a start."""

    async def wrong(self: SimulatedStore, *_rest: Any) -> list[Any]:
        return []

    return [(SimulatedStore, "occupancy", wrong)]


def _give_back_lost() -> list[tuple[Any, str, Any]]:
    """What is given back is on disk as waiting, and nobody is told."""
    return [(Dispatcher, "_after", lambda _self, _ended: None)]


def _begins_in_wait() -> list[tuple[Any, str, Any]]:
    """What is handed over begins, although its account was closed meanwhile."""
    return [(Starts, "_go", lambda self, message, release, _now: self._begin(message, release))]


def _late() -> list[tuple[Any, str, Any]]:
    """A window opens 30 ms late."""
    real = Window.occupy

    def wrong(self: Window, finished: int) -> None:
        real(self, finished + 30)

    return [(Window, "occupy", wrong)]


def _circuit_ignored() -> list[tuple[Any, str, Any]]:
    """An open circuit holds back nothing but its message's attempts."""
    return [(Circuit, "opens", lambda _self: 0)]


def _probes_early() -> list[tuple[Any, str, Any]]:
    """A provider that is down is asked after half the pause."""
    real = circuit._opened

    def wrong(code: str, pause: int, at: int, chance: Callable[[], float]) -> Circuit:
        made = real(code, pause, at, chance)
        made.until = at + pause // 2
        return made

    return [(circuit, "_opened", wrong)]


def _circuit_late() -> list[tuple[Any, str, Any]]:
    """A pause is twice as long as it may be."""
    real = circuit._opened

    def wrong(code: str, pause: int, at: int, chance: Callable[[], float]) -> Circuit:
        made = real(code, pause, at, chance)
        made.until += pause
        return made

    return [(circuit, "_opened", wrong)]


def _fast_start() -> list[tuple[Any, str, Any]]:
    """A probe that succeeds lets everything go."""
    real = circuit.ended

    def wrong(known: Any, *rest: Any, **more: Any) -> Any:
        made = real(known, *rest, **more)
        return None if made is not None and made.allowed > 1 else made

    return [(circuit, "ended", wrong)]


def _circuit_named_late() -> list[tuple[Any, str, Any]]:
    """Who waits for a provider that is down is told a moment after the one at which it may go."""
    real = forecast._circuit_reasons

    def wrong(*given: Any) -> list[Any]:
        told = real(*given)
        return [replace(each, until=each.until and each.until + 1000) for each in told]

    return [(forecast, "_circuit_reasons", wrong)]


def _outage_costs_attempts() -> list[tuple[Any, str, Any]]:
    """What fails while the circuit is open loses an attempt."""
    return [(attempts, "spare", lambda *_: None)]


def _no_turns() -> list[tuple[Any, str, Any]]:
    """Who was served stays at the head."""
    return [(Turns, "served", lambda _self: None)]


def _held_for_ever() -> list[tuple[Any, str, Any]]:
    """The gate of an account whose limits change stays shut."""
    real = Gates.set_account

    async def wrong(self: Gates, spec: Any) -> Any:
        gate = await real(self, spec)
        gate.held = True
        return gate

    return [(Gates, "set_account", wrong)]


PLANTED: dict[str, Patch] = {
    name.removeprefix("_").replace("_", "-"): patch
    for name, patch in list(globals().items())
    if name.startswith("_") and callable(patch) and getattr(patch, "__module__", "") == __name__
}
"""Every bug by its name."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The product with this bug in it; none for the product as it is."""
    patches = PLANTED[name]() if name is not None else []
    known = [(target, attribute, getattr(target, attribute)) for target, attribute, _ in patches]
    for target, attribute, value in patches:
        setattr(target, attribute, value)
    try:
        yield
    finally:
        for target, attribute, value in known:
            setattr(target, attribute, value)


__all__ = ["PLANTED", "planted"]
