"""Start the server with something broken on purpose, so that an experiment can be seen to fail.

    python -m bench.faults.broken NAME[=VALUE][,NAME...] -- up --data DIR ...

The breaks are callables in the `BREAKS` of `bench/faults/breaks_*.py`: each patches the product in this process
(with VALUE as its argument where one is given), and then the command line runs as always. The product itself
knows nothing of them. Without `--`, the names are listed.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Break = Callable[..., Any]


def breaks() -> dict[str, Break]:
    """Every break there is, by its name."""
    found: dict[str, Break] = {}
    for path in sorted(Path(__file__).parent.glob("breaks_*.py")):
        named: dict[str, Break] = importlib.import_module(f"bench.faults.{path.stem}").BREAKS
        both = found.keys() & named.keys()
        if both:
            raise SystemExit(f"{path.name} names a break again: {', '.join(sorted(both))}")
        found |= named
    return found


def apply(wanted: str) -> None:
    """Break what `wanted` names."""
    known = breaks()
    for each in filter(None, wanted.split(",")):
        name, equals, value = each.partition("=")
        if name not in known:
            raise SystemExit(f"there is no break '{name}'; there are {', '.join(sorted(known))}")
        known[name](*([value] if equals else []))


def main() -> None:
    given = sys.argv[1:]
    if "--" not in given:
        print(__doc__)
        for name, patch in sorted(breaks().items()):
            print(f"  {name}: {' '.join((patch.__doc__ or '').split())}")
        raise SystemExit(2)
    cut = given.index("--")
    apply(",".join(given[:cut]))
    sys.argv = ["paceline", *given[cut + 1 :]]
    from paceline.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
