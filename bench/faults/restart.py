"""Restarts at the limit: 10 accounts at 5 per 2 s and 20 per 10 s, a restart every 1 to 3 s, half of them kills.

    python -m bench.faults.restart [--seconds 120] [--seed 1] [--quick]

Exit code 1 when a window was exceeded in the receiver's own times, or less than 90 % of the limits was used.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.scenarios.restarts import restarts

LEAST_USE = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults.restart", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="25 seconds")
    given = parser.parse_args()
    seconds = 25 if given.quick else given.seconds
    folder = Path(tempfile.mkdtemp(prefix="paceline-restart-"))
    print(f"python -m bench.faults.restart --seconds {seconds:g} --seed {given.seed}", flush=True)
    figures = restarts(folder, seconds, [(5, 2.0), (20, 10.0)], 10, given.seed)
    print("\n".join(figures.lines()))
    if figures.exceeded or figures.twice or figures.use < LEAST_USE:
        print(f"BROKEN; kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
