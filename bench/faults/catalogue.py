"""Which experiments there are, what this machine lacks for them, and what is being tested."""

import importlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import apsw

from bench.faults.experiment import Experiment
from paceline import __version__

HERE = Path(__file__).resolve().parent
FAKETIME = "libfaketimeMT.so.1"


def discover() -> dict[str, Experiment]:
    """Every `EXPERIMENT` of `bench/faults/e??_*.py`, by its id."""
    found: dict[str, Experiment] = {}
    for path in sorted(HERE.glob("e[0-9][0-9]_*.py")):
        experiment: Experiment = importlib.import_module(f"bench.faults.{path.stem}").EXPERIMENT
        if experiment.id in found:
            raise SystemExit(f"{path.name} is a second {experiment.id}")
        found[experiment.id] = experiment
    return found


def missing(experiment: Experiment) -> str:
    """What it needs and this machine lacks, in words; empty when it can run."""
    lacking = [need for need in experiment.needs if not _there(need)]
    return f"needs {' and '.join(lacking)}, which this machine lacks" if lacking else ""


def _there(need: str) -> bool:
    if need == "root":
        return os.geteuid() == 0
    if need == "linux":
        return platform.system() == "Linux"
    if need == "faketime":
        return faketime_library() is not None
    if need == "postgresql":
        return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    return shutil.which(need) is not None


def faketime_library() -> Path | None:
    """The library that moves the wall clock of a process, if it is installed."""
    found = [path for root in ("/usr/lib", "/usr/local/lib") for path in Path(root).glob(f"**/{FAKETIME}")]
    return found[0] if found else None


def header(arguments: list[str]) -> str:
    """What is tested, on what, and how to do it again."""
    command = shlex.join(["python", "-m", "bench.faults", *arguments])
    return (
        f"{command}\nPaceline {__version__}, commit {_commit()}, Python {platform.python_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} cores"
    )


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=10"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
