"""kill -9 of the server, again and again, while it takes in and sends.

    python -m bench.faults.kill [--kills 300] [--seed 1] [--quick]

Exit code 1 when a promise was broken; the folder of the run is then kept and named.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.scenarios.kills import storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20 kills")
    given = parser.parse_args()
    kills = 20 if given.quick else given.kills
    folder = Path(tempfile.mkdtemp(prefix="paceline-kill-"))
    print(f"python -m bench.faults.kill --kills {kills} --seed {given.seed}", flush=True)
    figures = storm(folder, kills, given.seed)
    print("\n".join(figures.lines()))
    if not figures.broken:
        shutil.rmtree(folder)
        return 0
    print("BROKEN:", *figures.broken, f"kept: {folder}", sep="\n  ")
    return 1


if __name__ == "__main__":
    sys.exit(main())
