"""Loads named SQL statements and migrations from the package's `.sql` files.

A statement begins with a line ``-- name: hand_over``; then one comment says what it does and why. One that
changes a message's state also says which arrows of `model.states` it takes: ``-- arrow: pending -hand-over->
processing``. A guard test compares the arrows with the machine.
"""

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

_NAME = re.compile(r"--\s*name:\s*([a-z][a-z0-9_]*)\s*")
_OLDEST = re.compile(r"^--\s*oldest program:\s*([0-9]+)\s*$", re.MULTILINE)
_ARROW = re.compile(r"--\s*arrow:\s*([a-z]+)\s+-([a-z-]+)->\s+([a-z]+)\s*")


class Arrow(msgspec.Struct, frozen=True):
    """One step of the state machine, by its labels."""

    source: str
    event: str
    target: str


class Statement(msgspec.Struct, frozen=True):
    """One statement: `why` is its comment, `arrows` the steps it may take, `sql` what the database gets."""

    name: str
    why: str
    arrows: tuple[Arrow, ...]
    sql: str


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema: a script from `version` - 1 to `version`, and one that leads back (`down`).

    The first has no way back: before it there is nothing. A program is named by the newest version that it knows: from
    the program `oldest` on nodes may work while this step is taken and after it. The script says it in a line
    ``-- oldest program: 4``; where it does not, no older one may.
    """

    version: int
    name: str
    script: str
    down: str = ""

    @property
    def oldest(self) -> int:
        """The oldest program that may work with the schema after this step."""
        said = _OLDEST.search(self.script)
        return int(said[1]) if said else self.version


@cache
def load_statements(dialect: str) -> dict[str, Statement]:
    """Every named statement of a dialect.

    Raises:
        ValueError: a file breaks the form, or a name stands twice.
    """
    found: dict[str, Statement] = {}
    for file in _sql_files(files(__package__) / "sql" / dialect):
        for statement in parse_statements(file.read_text(encoding="utf-8")):
            if statement.name in found:
                raise ValueError(f"{file.name}: the name {statement.name} stands twice")
            found[statement.name] = statement
    return found


@cache
def load_migrations(dialect: str) -> tuple[Migration, ...]:
    """The migrations of a dialect in order; their numbers run from 1 without a gap."""
    return read_migrations(files(__package__) / "sql" / dialect / "migrations")


def read_migrations(folder: Traversable) -> tuple[Migration, ...]:
    """The migrations in a folder: ``0002_name.sql`` leads up, ``0002_name.down.sql`` beside it back.

    Raises:
        ValueError: a number is missing or stands twice, or a step above the first has no way back.
    """
    ups: dict[str, str] = {}
    downs: dict[str, str] = {}
    for file in _sql_files(folder):
        name = file.name.removesuffix(".sql")
        scripts = downs if name.endswith(".down") else ups
        scripts[name.removesuffix(".down")] = file.read_text(encoding="utf-8")
    made = [Migration(int(n.partition("_")[0]), n.partition("_")[2], ups[n], downs.get(n, "")) for n in ups]
    if [m.version for m in made] != list(range(1, len(made) + 1)):
        raise ValueError(f"the migrations in {folder} are not numbered 1, 2, 3 ...")
    for each in made:
        if bool(each.down) != (each.version > 1):
            raise ValueError(f"migration {each.version}: every one but the first needs its .down.sql")
    return tuple(made)


def parse_statements(text: str) -> list[Statement]:
    """Cut a file into its statements.

    Raises:
        ValueError: text before the first name, or a statement without a comment or without SQL.
    """
    parts: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        match = _NAME.fullmatch(line)
        if match:
            parts.append((match[1], []))
        elif parts:
            parts[-1][1].append(line)
        elif line.strip() and not line.startswith("--"):
            raise ValueError(f"SQL before the first name: {line}")
    return [_statement(name, lines) for name, lines in parts]


def _statement(name: str, lines: list[str]) -> Statement:
    arrows: list[Arrow] = []
    why: list[str] = []
    sql: list[str] = []
    for line in lines:
        arrow = _ARROW.fullmatch(line)
        if arrow:
            arrows.append(Arrow(*arrow.groups()))
        elif line.startswith("--") and not sql:
            why.append(line.removeprefix("--").strip())
        elif line.strip():
            sql.append(line)
    if not why or not sql:
        raise ValueError(f"the statement {name} needs a comment and SQL")
    return Statement(name, " ".join(why), tuple(arrows), "\n".join(sql).rstrip(";"))


def _sql_files(folder: Traversable) -> list[Traversable]:
    return sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
