"""Guards against providers that are down, each taken out."""

from collections.abc import Callable
from typing import Any

from paceline.engine import attempts
from paceline.pacing import circuit


def no_circuit() -> None:
    """No number of failures opens it."""
    circuit.ended = lambda *_given, **_more: None


def eager_probes() -> None:
    """A pause lasts a tenth of what it says."""
    usual = circuit._opened

    def opened(code: str, pause: int, at: int, chance: Callable[[], float]) -> circuit.Circuit:
        made = usual(code, pause, at, chance)
        made.until = at + (made.until - at) // 10
        return made

    circuit._opened = opened


def pauses_in_step() -> None:
    """Every account waits exactly as long."""
    circuit.JITTER = 0.0  # type: ignore[misc] # that is what a break is


def costly_outages() -> None:
    """A message whose provider is down pays for it."""
    attempts.spare = lambda *_given: None  # type: ignore[attr-defined] # that is what a break is


def no_slow_start() -> None:
    """It is closed by the first success."""
    usual = circuit.ended

    def ended(known: Any, *given: Any, **more: Any) -> Any:
        made = usual(known, *given, **more)
        return None if made is not None and made.allowed > 1 else made

    circuit.ended = ended


BREAKS = {
    patch.__name__.replace("_", "-"): patch
    for patch in (no_circuit, eager_probes, pauses_in_step, costly_outages, no_slow_start)
}
