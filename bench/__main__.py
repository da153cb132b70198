"""Run the measurements, print them as a table with their goals, and write them as JSON."""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import backlog, drain, idle, intake, latency, pacing, postgres, store
from bench.postgres_place import NoServerError
from paceline.wiring import GC_EVERY, SWITCH_S

Bench = Callable[[Path, bool], Awaitable[list[dict[str, Any]]]]
ALL: dict[str, Bench] = {
    "store": store.run,
    "drain": drain.run,
    "latency": latency.run,
    "pacing": pacing.run,
    "idle": idle.run,
    "backlog": backlog.run,
    "intake": intake.run,
    **postgres.ALL,
}


def main() -> int:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help="which (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, to see that everything runs")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where the figures go")
    given = parser.parse_args()
    sys.setswitchinterval(SWITCH_S)  # as the server does, and the collector likewise
    gc.set_threshold(GC_EVERY, 20, 50)
    results: list[dict[str, Any]] = []
    known: dict[str, float] = {}
    for name in given.names or list(ALL):
        calibration = calibrate()
        try:
            figures = measure(name, quick=given.quick)
        except NoServerError as error:
            print(f"SKIPPED {name}: {error}", flush=True)
            results.append({"name": name, "skipped": str(error)})
            continue
        for figure in figures:
            figure["calibration_ms"] = calibration
            known[figure["name"]] = figure["value"]
            add_ratio(figure, known)
            results.append(figure)
            show(figure)
    given.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"figures written to {given.json}")
    return 0


def measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """One measurement in an event loop and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="paceline-bench-") as folder:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(ALL[name](Path(folder), quick))
        return uvloop.run(ALL[name](Path(folder), quick))


def calibrate() -> float:
    """Milliseconds of a fixed loop: how fast this machine is at this moment."""
    start = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number
    return round((time.perf_counter() - start) * 1000, 1)


def add_ratio(figure: dict[str, Any], known: dict[str, float]) -> None:
    """Relate a figure to another of the same run, where it says so."""
    base = figure.get("of")
    if known.get(base) and "ratio" not in figure:
        figure["ratio"] = round(figure["value"] / known[base], 3)


def show(figure: dict[str, Any]) -> None:
    """One line for people."""
    ratio = f"  = {figure['ratio']:.2f} of {figure['of']}" if "ratio" in figure else ""
    goal = f"  (goal {figure['goal']})" if figure.get("goal") else ""
    print(f"{figure['name']:<34}{figure['value']:>14,.2f} {figure['unit']:<12}{ratio}{goal}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
