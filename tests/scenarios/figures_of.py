"""What the kernel tells of a process, and percentiles of what was measured."""

from collections.abc import Sequence
from pathlib import Path


def rss_mib(pid: int) -> float:
    """The resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def thread_count(pid: int) -> int:
    """How many threads a process has."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("Threads:")[2].split()[0])


def open_files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; 0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
