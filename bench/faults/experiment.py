"""What an experiment is: one fault, the promises that hold under it, and ways to break each promise on purpose.

An experiment runs the real server against a provider that keeps its own ledger and answers with figures. A
broken variant is the same run on a server with one guard taken out (`bench.faults.broken`); it has to fail, for
a check that cannot fail proves nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RECORD = 0.1
"""From this size on a run is one for the record."""


@dataclass(frozen=True)
class Scale:
    """How much of it: `size` 1.0 is the release run; a quick run is a few hundredths of it. Same seed, same faults."""

    size: float = 1.0
    seed: int = 1

    def count(self, full: int, least: int = 1) -> int:
        """So many of `full` at this size, never fewer than `least`."""
        return max(least, round(full * self.size))

    def timing(self, full: float, quick: float) -> float:
        """A gate of time: `full` in runs for the record, `quick` where a few samples on a busy machine are all."""
        return full if self.size >= RECORD else quick


@dataclass(frozen=True)
class Figure:
    """One promise: in words, what was measured, the gate in words, and whether it held."""

    promise: str
    value: str
    gate: str
    passed: bool
    timing: bool = False
    """Hangs on how busy the machine is: where it alone fails, a broken variant has not been noticed."""


Run = Callable[[Path, Scale, str], list[Figure]]
"""Folder for its files, scale, and the name of the break to run with ('' for none)."""


@dataclass(frozen=True)
class Experiment:
    """`breaks` names the breaks of `bench.faults.broken` that must make it fail, each with what it takes out."""

    id: str
    title: str
    run: Run
    breaks: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Programs or rights it cannot do without, such as 'strace' or 'root'."""


def no_more(promise: str, value: float, most: float, unit: str = "", *, timing: bool = False) -> Figure:
    """A figure that has to be at most so much."""
    gate = f"<= {most:g}{unit}" if most else "0"
    return Figure(promise, f"{value:g}{unit}", gate, value <= most, timing)


def no_less(promise: str, value: float, least: float, unit: str = "", *, timing: bool = False) -> Figure:
    """A figure that has to be at least so much."""
    return Figure(promise, f"{value:g}{unit}", f">= {least:g}{unit}", value >= least, timing)
