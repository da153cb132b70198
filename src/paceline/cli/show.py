"""How the command line shows things: tables that fit, words for moments, and nothing that acts on a terminal.

Data goes to standard output, notes and progress to standard error. In a pipe nothing is shortened, coloured or
redrawn.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final, TextIO

from paceline.clock import SystemClock

if TYPE_CHECKING:
    from rich.console import Console

# Controls, the second set of controls, marks that turn the direction of writing, line separators, lone surrogates.
_ACTING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_ACTING_IN_JSON: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_GAP: Final = "  "

STYLES: Final[Mapping[str, str]] = {
    "completed": "green",
    "ready": "green",
    "failed": "red",
    "unhealthy": "red",
    "uncertain": "magenta",
    "flooded": "yellow",
    "retrying": "yellow",
    "paused": "yellow",
    "limited": "cyan",
    "over-quota": "yellow",
    "processing": "cyan",
}


def safe(value: object) -> str:
    r"""One line of text in which nothing acts on a terminal: an escape character becomes ``\x1b``."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json_line(value)
    return _ACTING.sub(_escaped, text)


def json_line(value: object) -> str:
    """JSON on one line, with characters that act on a terminal written as escapes."""
    return _ACTING_IN_JSON.sub(_json_escaped, json.dumps(value, ensure_ascii=False))


def put(text: str = "") -> None:
    """One line to standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line to standard error: what a person should know and a program should not read."""
    _prose(text, sys.stderr)


def say(text: str) -> None:
    """A sentence to standard output, broken between words where the terminal is narrow."""
    _prose(text, sys.stdout)


def _prose(text: str, stream: TextIO) -> None:
    room = width(stream) if stream.isatty() else None
    indent = " " * (len(text) - len(text.lstrip()))
    lines = [text] if room is None or cells(text) <= room else wrapped(text.lstrip(), room - len(indent))
    stream.writelines(f"{indent if line is not text else ''}{line}\n" for line in lines)


def put_json(value: object) -> None:
    """A JSON document to standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    put(_ACTING_IN_JSON.sub(_json_escaped, text))


def width(stream: TextIO | None = None) -> int | None:
    """How many columns there are; None in a pipe, where nothing is shortened."""
    if (stream or sys.stdout).isatty():
        return max(20, shutil.get_terminal_size((80, 24)).columns)
    columns = os.environ.get("COLUMNS", "")
    return max(20, int(columns)) if columns.isdigit() and len(columns) < 6 else None


@cache
def console(*, error: bool = False) -> "Console":
    """Rich's console for the one or the other stream; it knows NO_COLOR and pipes."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True, emoji=False, markup=False)


def styled(text: str, style: str | None, *, error: bool = False) -> str:
    """`text` with colour where the stream is a terminal that wants it."""
    stream = sys.stderr if error else sys.stdout
    if not style or not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    from rich.style import Style

    return Style.parse(style).render(text)


class Column:
    """A column of a table.

    Attributes:
        title: what stands above it, and the text a person looks for.
        weight: the columns with the least weight go first when there is no room for all.
        right: figures stand to the right.
        least: it is cut to this many characters before another column goes.
    """

    def __init__(self, title: str, weight: int = 5, *, right: bool = False, least: int = 8) -> None:
        """A column of equal standing unless told otherwise."""
        self.title, self.weight, self.right, self.least = title, weight, right, least


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], room: int | None) -> list[str]:
    """The lines of a table that takes at most `room` columns of the screen; None shortens nothing."""
    texts = [[safe(cell) for cell in row] for row in rows]
    shown = [i for i in range(len(columns)) if any(row[i] for row in texts) or columns[i].weight >= 9]
    sizes = {i: max(cells(columns[i].title), *(cells(row[i]) for row in texts), 0) for i in shown}
    if room is not None:
        shown, sizes = _fitted(columns, shown, sizes, room)
    lines = [_line([columns[i].title.upper() for i in shown], [columns[i] for i in shown], shown, sizes)]
    for row in texts:
        lines.append(_line([row[i] for i in shown], [columns[i] for i in shown], shown, sizes, colour=True))
    return lines


def put_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """A table to standard output, as wide as that is."""
    for line in table(columns, rows, width()):
        put(line)


def put_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing as ``name  value`` lines; empty values are left out, what is long goes on below its beginning."""
    kept = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    size = max((len(name) for name, _ in kept), default=0)
    room = width()
    for name, value in kept:
        # A line of content always stands below `value`, so that none can pass for a line of ours.
        lines = [safe(line) for line in value.splitlines()] if isinstance(value, str) else [safe(value)]
        if room is not None:
            lines = [piece for line in lines for piece in wrapped(line, max(10, room - size - 2))]
        for index, line in enumerate(lines):
            put(f"{name if index == 0 else '':<{size}}{_GAP}{styled(line, STYLES.get(line))}".rstrip())


def cells(text: str) -> int:
    """How many columns of the screen a text takes; Chinese characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, size: int) -> str:
    """`text` in at most `size` columns, with a mark where something is left out."""
    if cells(text) <= size:
        return text
    if text.isascii():
        return text[: max(0, size - 1)] + "…"
    from rich.cells import set_cell_size

    return set_cell_size(text, max(0, size - 1)).rstrip() + "…"


def wrapped(text: str, room: int) -> list[str]:
    """`text` in lines of at most `room` columns, broken between words where there are any."""
    lines, line = [], ""
    for word in text.split(" "):
        while cells(word) > room:
            head = room - cells(line) - 1 if line else room
            if head < 4:
                lines.append(line)
                line = ""
                continue
            taken = _taken(word, head)
            lines.append(f"{line} {word[:taken]}" if line else word[:taken])
            line, word = "", word[taken:]
        if line and cells(line) + 1 + cells(word) > room:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _taken(word: str, room: int) -> int:
    count = size = 0
    for character in word:
        size += cells(character)
        if size > room:
            break
        count += 1
    return max(1, count)


def moment(text: object) -> datetime | None:
    """The instant in an RFC 3339 text."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


@cache
def _clock() -> SystemClock:
    return SystemClock()


def now() -> datetime:
    """The present instant."""
    return datetime.fromtimestamp(_clock().now() / 1000, UTC)


def local(text: object) -> str:
    """An instant in local time: only the clock when it is today, with the date otherwise."""
    instant = moment(text)
    if instant is None:
        return safe(text)
    here = instant.astimezone()
    return here.strftime("%H:%M:%S" if here.date() == now().astimezone().date() else "%Y-%m-%d %H:%M:%S")


def until(text: object) -> str:
    """How far an instant is, in words: ``in 12 s``, ``3 min ago``, ``now``."""
    instant = moment(text)
    if instant is None:
        return safe(text)
    seconds = (instant - now()).total_seconds()
    if abs(seconds) < 0.5:
        return "now"
    return f"in {spell(seconds)}" if seconds > 0 else f"{spell(-seconds)} ago"


def spell(seconds: float) -> str:
    """A duration in words, two units at most: ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 days``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for size, unit, below, smaller in (
        (86_400, "day", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            count, rest = whole // size, whole % size // below
            name = f"{unit}s" if unit == "day" and count != 1 else unit
            return f"{count} {name} {rest} {smaller}" if rest else f"{count} {name}"
    return f"{whole} s"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    named = {10: "\\n", 13: "\\r", 9: "\\t"}.get(number)
    return named or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def _json_escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _fitted(
    columns: Sequence[Column], shown: list[int], sizes: dict[int, int], room: int
) -> tuple[list[int], dict[int, int]]:
    """Cut the widest columns down to their least, then leave out the lightest, until the table fits."""
    shown = list(shown)
    while True:
        sizes = {i: sizes[i] for i in shown}
        over = sum(sizes.values()) + len(_GAP) * (len(shown) - 1) - room
        spare = {i: sizes[i] - max(columns[i].least, len(columns[i].title)) for i in shown}
        spare = {i: most for i, most in spare.items() if most > 0}
        if over <= 0 or sum(spare.values()) >= over:
            for _ in range(max(0, over)):
                widest = max(spare, key=lambda i: sizes[i] if spare[i] else -1)
                sizes[widest] -= 1
                spare[widest] -= 1
            return shown, sizes
        if len(shown) == 1:
            return shown, {shown[0]: room}
        shown.remove(min(shown, key=lambda i: (columns[i].weight, -i)))


def _line(
    texts: Sequence[str],
    columns: Sequence[Column],
    shown: Sequence[int],
    sizes: Mapping[int, int],
    *,
    colour: bool = False,
) -> str:
    parts = []
    for position, (text, column) in enumerate(zip(texts, columns, strict=True)):
        size = sizes[shown[position]]
        text = cut(text, size)
        fill = " " * (size - cells(text))
        last = position == len(texts) - 1
        dressed = styled(text, STYLES.get(text)) if colour else styled(text, "bold")
        parts.append(fill + dressed if column.right else dressed + ("" if last else fill))
    return _GAP.join(parts).rstrip()
