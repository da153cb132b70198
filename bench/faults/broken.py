"""The command line with something broken on purpose, or set for an experiment.

    python -m bench.faults.broken NAME -- up ...

NAME is a key of `BREAKS` in any `bench/faults/breaks_*.py`.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def known() -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {}
    for path in sorted(Path(__file__).parent.glob("breaks_*.py")):
        found.update(importlib.import_module(f"bench.faults.{path.stem}").BREAKS)
    return found


def main() -> None:
    name, _, *rest = sys.argv[1:]
    known()[name]()
    sys.argv = ["paceline", *rest]
    from paceline.cli.main import main as paceline

    paceline()


if __name__ == "__main__":
    main()
