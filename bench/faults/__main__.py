"""Fault experiments: one fault each, on the real server, judged by a provider that keeps its own ledger.

    python -m bench.faults                      every experiment, at release size
    python -m bench.faults E01 E12 --quick      these two, at a fiftieth of it
    python -m bench.faults --quick --prove      and each with its guards taken out: it has to fail
    python -m bench.faults E01 --broken NAME    one broken variant, to look at
    python -m bench.faults --list               what there is

A line for each promise, a table at the end. Exit code 1 when a promise was broken, or a broken variant passed.
The folder of a run that failed is kept and named. docs/faults.md tells what each experiment does.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults import broken
from bench.faults.catalogue import discover, header, missing
from bench.faults.experiment import Experiment, Figure, Scale
from tests.scenarios.server import Process

QUICK = 0.02


@dataclass
class Result:
    """What came of one run of an experiment; `broken` is what was taken out for it."""

    experiment: Experiment
    scale: Scale
    broken: str = ""
    figures: list[Figure] = field(default_factory=list)
    stopped: str = ""
    """Why it did not get to its end, if it did not."""
    left_out: str = ""
    seconds: float = 0.0
    kept: str = ""

    @property
    def failed(self) -> list[Figure]:
        return [figure for figure in self.figures if not figure.passed]

    @property
    def good(self) -> bool:
        """Promises held; in a broken variant, at least one did not."""
        if self.broken:
            noticed = any(not figure.timing for figure in self.failed)
            return noticed or self.stopped.startswith("AssertionError")
        return bool(self.figures) and not self.failed and not self.stopped

    @property
    def name(self) -> str:
        return f"{self.experiment.id} broken: {self.broken}" if self.broken else self.experiment.id


def run(experiment: Experiment, scale: Scale, without: str, *, keep: bool) -> Result:
    """Run it in a folder of its own, which is kept when it failed and was not meant to."""
    result = Result(experiment, scale, without)
    folder = Path(tempfile.mkdtemp(prefix=f"paceline-{experiment.id.lower()}-"))
    begun = time.monotonic()
    try:
        result.figures = experiment.run(folder, scale, without)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        result.stopped = f"{type(error).__name__}: {lines[0][:300]}"
        if lines[0].startswith("the process did not start"):
            result.stopped = " ".join(lines)[-600:]  # no promise was tested
    finally:
        result.seconds = time.monotonic() - begun
        end_all()
        if keep or not result.good:
            result.kept = str(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def end_all() -> None:
    """End, by its id, every process that a run has left behind."""
    for process in list(Process.running):
        process.end(signal.SIGKILL)


def tell(result: Result) -> None:
    """The lines of one run."""
    seed = f"(seed {result.scale.seed})"
    id_ = result.experiment.id
    if result.left_out:
        print(f"{id_} LEFT OUT: {result.left_out} {seed}", flush=True)
        return
    if result.broken and result.good:
        noticed = [f"{each.promise} {each.value}" for each in result.failed if not each.timing]
        told = ", ".join(noticed) or result.stopped
        print(f"{result.name} -> failed as it must ({told}) {seed}", flush=True)
    elif result.broken:
        print(f"{result.name} -> PASSED, AND MUST NOT {result.stopped} {seed}", flush=True)
    else:
        for each in result.figures:
            verdict = "pass" if each.passed else "FAIL"
            print(f"{id_} {each.promise}: {each.value}; gate {each.gate}; {verdict} {seed}", flush=True)
        if result.stopped:
            print(f"{id_} did not get to its end: {result.stopped}; FAIL {seed}", flush=True)
    if result.kept:
        print(f"{id_} kept: {result.kept}", flush=True)


def table(results: list[Result]) -> None:
    """One row for each run."""
    print(f"\n{'run':<34} {'verdict':<9} {'promises':>8} {'failed':>6} {'time':>7}")
    for each in results:
        verdict = "left out" if each.left_out else "ok" if each.good else "FAIL"
        counts = f"{len(each.figures):>8} {len(each.failed):>6}"
        print(f"{each.name:<34} {verdict:<9} {counts} {each.seconds:>6.0f}s")


def as_json(results: list[Result]) -> str:
    rows = [
        {
            "id": each.experiment.id, "title": each.experiment.title, "seed": each.scale.seed,
            "size": each.scale.size, "broken": each.broken, "good": each.good, "left_out": each.left_out,
            "stopped": each.stopped, "seconds": round(each.seconds, 1), "kept": each.kept,
            "figures": [vars(figure) for figure in each.figures],
        }
        for each in results
    ]  # fmt: skip
    return json.dumps(rows, indent=2)


def chosen(found: dict[str, Experiment], wanted: list[str]) -> list[Experiment]:
    unknown = [name for name in wanted if name.upper() not in found]
    if unknown:
        raise SystemExit(f"there is no experiment {', '.join(unknown)}; there are {', '.join(found)}")
    return [found[name.upper()] for name in wanted] or list(found.values())


def plan(experiments: list[Experiment], given: argparse.Namespace) -> list[Result]:
    """What will be run, in order."""
    size = given.size or (QUICK if given.quick else 1.0)
    known = broken.breaks()
    runs: list[Result] = []
    for each in experiments:
        names = [given.broken] if given.broken else ["", *(each.breaks if given.prove else ())]
        for name in names:
            strange = [part for part in name.split(",") if part and part.partition("=")[0] not in known]
            if strange:
                raise SystemExit(f"{each.id} names a break that nobody wrote: {', '.join(strange)}")
            scale = Scale(min(size, QUICK) if name and not given.broken else size, given.seed)
            runs.append(Result(each, scale, name, left_out=missing(each)))
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--quick", action="store_true", help=f"size {QUICK}")
    parser.add_argument("--size", type=float, help="1 is the release run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", default="", metavar="NAME", help="run only this broken variant")
    parser.add_argument("--prove", action="store_true", help="also every broken variant, at quick size")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep", action="store_true", help="keep every folder")
    given = parser.parse_args()
    experiments = chosen(discover(), given.ids)
    if given.list:
        for each in experiments:
            needs = f" (needs {', '.join(each.needs)})" if each.needs else ""
            print(f"{each.id}  {each.title}{needs}")
            for name, what in each.breaks.items():
                print(f"       broken: {name}: {what}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(header(sys.argv[1:]), flush=True)
    results: list[Result] = []
    try:
        for wanted in plan(experiments, given):
            made = wanted
            if not wanted.left_out:
                made = run(wanted.experiment, wanted.scale, wanted.broken, keep=given.keep)
            tell(made)
            results.append(made)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is ended", flush=True)
        return 130
    finally:
        end_all()
        if given.json:
            given.json.write_text(as_json(results))
    table(results)
    return 0 if all(each.good or each.left_out for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
