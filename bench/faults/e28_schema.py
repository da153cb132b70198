"""kill -9 at every step of a migration up, of one down and of a purge; and an old program before a newer schema.

A step is the start of a statement or of a trigger, or some hundred instructions of SQLite's machine. After each
kill the database is looked at and opened again.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import apsw

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.schema_children import OLD, fill
from tests.scenarios.server import clean_environment

_ROOT = Path(__file__).resolve().parents[2]
_BAD = (
    "failed",
    "failed opens",
    "between versions",
    "lost or changed",
    "bad copies",
    "not at the newest version",
)


def run(folder: Path, scale: Scale, break_: str) -> list[Figure]:
    """Up, down and purge with 1,000 messages, every step at full size."""
    asyncio.run(fill(folder / "old.db", scale.count(1000, 60)))
    every = max(1, round(0.3 / scale.size))
    figures = []
    for what in ("up", "down", "purge"):
        found = _kills(folder, what, every, break_)
        figures.append(no_less(f"kills: {what}", found.get("kills", 0), 2))
        figures += [
            no_more(f"{what}: {bad}", found.get(bad, 0), 0)
            for bad in _BAD
            if what != "purge" or bad != "not at the newest version"
        ]
        if what == "purge":
            figures.append(no_more("purge: ended messages that are left", found["not purged"], 0))
        else:
            figures.append(no_less(f"{what}: copies made before and found whole", found.get("copies", 0), 1))
    return [*figures, _old_program(folder)]


def _kills(folder: Path, what: str, every: int, break_: str) -> dict[str, int]:
    command = [sys.executable, "-m", "bench.faults.schema_children", str(folder), what, str(every), break_]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=_ROOT, env=clean_environment()
    )
    print(done.stderr[-2000:], end="", file=sys.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _old_program(folder: Path) -> Figure:
    """Every command that opens the database refuses a newer one in words, and leaves it as it is."""
    data = folder / "newer"
    data.mkdir()
    path = data / "paceline.db"
    path.write_bytes((folder / "old.db").read_bytes())
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", OLD + 1)
    connection.pragma("journal_mode", "delete")
    connection.close()
    before, polite = path.read_bytes(), 0
    asked = (("up", "--port", "0"), ("store", "check"), ("store", "migrate"), ("backup",))
    for command in asked:
        said = _paceline(*command, "--data", str(data))
        polite += said.returncode == 1 and "newer Paceline" in said.stderr and "Traceback" not in said.stderr
    said = _paceline("restore", str(path), "--data", str(folder / "empty"))
    polite += said.returncode == 1 and "newer Paceline" in said.stderr
    same = path.read_bytes() == before
    text = f"{polite} of {len(asked) + 1} commands, file {'unchanged' if same else 'CHANGED'}"
    return Figure("an old program refuses a newer schema", text, "all, unchanged", same and polite == 5)


def _paceline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline.cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=60
    )


EXPERIMENT = Experiment(
    "E28",
    "Killed in the middle of a migration or a purge",
    run,
    {
        "no-transaction": "a migration's statements are committed one by one",
        "purge-everything": "a purge takes what has not ended as well",
    },
)
