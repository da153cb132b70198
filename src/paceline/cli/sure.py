"""Asking before something that cannot be taken back."""

import sys

from paceline.cli.show import note, safe
from paceline.model.errors import InvalidError, Problem


def sure(what: str, *, yes: bool) -> bool:
    """Whether to go on. A script, which cannot answer, has to say ``--yes``."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidError([Problem("/yes", f"{what} Nobody can be asked here: add --yes to go on")])
    sys.stderr.write(f"{safe(what)} Type 'yes' to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"yes", "y"}:
        return True
    note("Nothing was changed.")
    return False
