"""Run seeds: `python -m tests.simulation --seeds 200`, or one: `--seed 7 --history`."""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

from tests.simulation.planted import PLANTED, planted
from tests.simulation.scenario import Result, run

CHUNK = 10


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--history", action="store_true", help="print what happens in it")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1)
    parser.add_argument(
        "--planted", choices=sorted(PLANTED), help="put this bug in, and stop at the seed that finds it"
    )
    return parser.parse_args()


def _part(seeds: range) -> list[Result]:
    return [run(seed) for seed in seeds]


def hunt(name: str, seeds: range) -> Result | None:
    """The first seed that finds a planted bug: one that breaks a rule with it and none without."""
    for seed in seeds:
        with planted(name):
            result = run(seed)
        if result.violations and not run(seed).violations:
            return result
    return None


def _results(first: int, count: int, processes: int) -> Iterator[Result]:
    parts = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    if processes == 1:
        for part in parts:
            yield from _part(part)
        return
    with ProcessPoolExecutor(processes) as pool:
        for results in pool.map(_part, parts):
            yield from results


def _report(result: Result, name: str | None = None) -> None:
    more = f" --planted {name}" if name else ""
    for rule, us, text in result.violations:
        print(
            f"seed {result.seed}: rule {rule} at {us / 1e6:.6f} s: {text}\n"
            f"    python -m tests.simulation --seed {result.seed} --history{more}",
            flush=True,
        )


def main() -> int:
    """All seeds; 1 when a rule was broken."""
    given = _arguments()
    if given.seed is not None:
        with planted(given.planted):
            result = run(given.seed, history=given.history)
        print("\n".join(result.history))
        _report(result)
        return int(bool(result.violations))
    if given.planted is not None:
        found = hunt(given.planted, range(given.first, given.first + given.seeds))
        if found is not None:
            _report(found, given.planted)
        else:
            print(f"{given.planted}: not found in {given.seeds} seeds")
        return int(found is None)
    begun = time.monotonic()
    seeds = messages = crashes = violations = starts = calls = 0
    virtual = 0.0
    for result in _results(given.first, given.seeds, given.processes):
        _report(result)
        seeds += 1
        virtual += result.virtual_us / 1e6
        messages += result.messages
        calls += result.arrivals
        crashes += result.crashes
        starts += result.starts
        violations += bool(result.violations)
    took = time.monotonic() - begun
    print(
        f"{seeds} seeds, {virtual / 86_400:.1f} days simulated, {messages} messages, {calls} arrivals, "
        f"{starts} starts, {crashes} crashes, {violations} seeds with violations, {seeds / took:.1f} seeds/s"
    )
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
