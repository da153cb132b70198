"""``paceline export``: messages as CSV or JSON lines."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from paceline.cli.filters import EVERYTHING, Filters, merged
from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.show import note, plural, put_json
from paceline.model.errors import PacelineError


def export(
    *,
    format: Literal["csv", "jsonl"] = "jsonl",  # noqa: A002 - its name as an option
    output: Path | None = None,
    force: Switch = False,
    filters: Filters = EVERYTHING,
    common: Common = USUAL,
) -> int:
    """Write every message that matches, to a file or to standard output.

    Args:
        format: CSV for a spreadsheet, JSON lines for programs.
        output: The file to write; it appears only when it is complete. Default: standard output.
        force: Replace a file that is there.
    """
    from paceline.cli.progress import progress

    if output is not None and output.exists() and not force:
        raise PacelineError(f"{output} is there already. Choose another name, or add --force to replace it")
    shown = progress("Exporting", None) if output is not None else nullcontext(lambda _: None)
    count = 0
    partial = None if output is None else output.with_name(output.name + ".partial")
    with common.open() as server, shown as advance:
        lines = server.lines("/messages/export", merged(filters, format=format))
        if partial is None or output is None:
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return 0
        try:
            with partial.open("wb") as file:
                for line in lines:
                    file.write(line)
                    count += 1
                    advance(1)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    count -= format == "csv" and count > 0
    if common.json:
        put_json({"output": str(output), "lines": count})
    else:
        note(f"{plural(count, 'line')} written to {output}.")
    return 0
