"""Messages that end the process: how often each may, what it costs its neighbours, and what becomes of all of them.

The application is started again whenever it dies, as an init system would. Every run of a handler is in a ledger
that was flushed before the run did anything, so that what was under way at a crash is known from outside.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.poison_app import POISONS
from tests.scenarios.server import ROOT, clean_environment

START_S = 60


@dataclass
class Figures:
    """What came out."""

    crashes: int = 0
    groups: int = 0
    """Crashes at which a poison was under way for the first time: those that share it share the next one too."""
    poisons: int = 0
    neighbours: int = 0
    most_crashes_of_a_poison: int = 0
    quarantined: int = 0
    blamed: list[str] = field(default_factory=list)
    attempts_taken: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)
    unsettled: bool = False

    @property
    def most_crashes(self) -> int:
        """Two that poisons under way together share, and one of each alone."""
        return 2 * self.groups + self.poisons

    def lines(self) -> list[str]:
        return [
            f"crashes, at most                 {self.crashes}, {self.most_crashes}",
            f"poisons, quarantined             {self.poisons}, {self.quarantined}",
            f"most crashes of one poison       {self.most_crashes_of_a_poison}",
            f"neighbours, blamed               {self.neighbours}, {len(self.blamed)}",
            f"neighbours whose attempts count  {len(self.attempts_taken)}",
            f"suspects under way together      {len(self.together)}",
        ]


def poison(folder: Path, kinds: list[str], neighbours: int, seed: int = 1, broken: str = "") -> Figures:
    """Send poisons among neighbours, start until everything has ended, and judge."""
    chance = random.Random(seed)
    plan: list[dict[str, Any]] = [{"kind": "work"} for _ in range(neighbours)]
    for kind in kinds:
        plan.insert(chance.randrange(len(plan) + 1), {"kind": kind})
    for number, message in enumerate(plan):
        message |= {"payload": number, "idempotency_key": f"m{number}", "max_attempts": 2}
    (folder / "plan.json").write_text(json.dumps(plan))
    figures = Figures(poisons=len(kinds), neighbours=neighbours)
    while not (folder / "result.json").exists():
        if figures.crashes > 3 * len(kinds):
            figures.unsettled = True
            return figures
        figures.crashes += run_once(folder, broken) != 0
    _judge(folder, figures)
    return figures


def run_once(folder: Path, broken: str = "") -> int:
    """Start the application and wait for its end; the exit code, negative for a signal."""
    command = [sys.executable, "-m", "tests.scenarios.poison_app", str(folder)]
    if broken:
        command += ["--break", broken]
    with (folder / "app.log").open("ab") as log:
        done = subprocess.run(
            command, cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            check=False, timeout=START_S,
        )  # fmt: skip
    return done.returncode


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Every run of a handler, in order."""
    return [json.loads(line) for line in (folder / "ledger").read_text().splitlines()]


def result(folder: Path) -> list[dict[str, Any]]:
    """What became of each message."""
    found: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())
    return found


def _judge(folder: Path, figures: Figures) -> None:
    poisonous = {*POISONS}
    runs = Counter(line["id"] for line in ledger(folder) if line["what"] == "begun")
    for message in result(folder):
        if message["kind"] in poisonous:
            figures.most_crashes_of_a_poison = max(figures.most_crashes_of_a_poison, runs[message["id"]])
            code = (message["error"] or {}).get("code")
            figures.quarantined += message["state"] == "failed" and code == "quarantined"
        elif message["kind"] == "work":
            if message["state"] != "completed":
                figures.blamed.append(message["id"])
            if message["attempts"] != 1:
                figures.attempts_taken.append(message["id"])
    figures.together = _together(folder)
    figures.groups = _groups(folder)


def _groups(folder: Path) -> int:
    """Processes in which a poison was run that no earlier one had run."""
    firsts: dict[str, int] = {}
    for line in ledger(folder):
        if line["kind"] in POISONS:
            firsts.setdefault(line["id"], line["pid"])
    return len(set(firsts.values()))


def _together(folder: Path) -> list[str]:
    """Runs beside which another went on, although one of the two had been under way at two crashes already."""
    crashes: Counter[str] = Counter()
    open_: dict[str, str] = {}
    found: list[str] = []
    pid = None
    for line in ledger(folder):
        if line["pid"] != pid:
            crashes.update(open_.keys())
            open_, pid = {}, line["pid"]
        if line["what"] == "done":
            open_.pop(line["id"], None)
            crashes.pop(line["id"], None)
            continue
        found += [f"{line['id']} beside {o}" for o in open_ if max(crashes[line["id"]], crashes[o]) >= 2]
        open_[line["id"]] = line["kind"]
    return found
